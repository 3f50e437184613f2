// What changes something is asked about first.

import { useEffect, useRef } from "preact/hooks";

export interface Question {
  title: string;
  text: string;
  action: string;
  danger?: boolean;
  /** Of what is asked about. */
  picture?: string;
  act: () => Promise<void>;
}

/** A question before an action; closed by Escape, "Keep as it is" or the action. */
export function Confirm(props: { question: Question | null; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { question, close } = props;
  useEffect(() => {
    if (question && !dialog.current?.open) dialog.current?.showModal();
    if (!question) dialog.current?.close();
  }, [question]);
  const act = () => {
    const wanted = question;
    close();
    void wanted?.act();
  };
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="question">
      <h2 id="question">{question?.title}</h2>
      {question?.picture && <img src={question.picture} alt="" width="192" height="192" />}
      <p>{question?.text}</p>
      <div class="row">
        <button type="button" class={question?.danger ? "danger" : "main"} onClick={act}>{question?.action}</button>
        <button type="button" onClick={close} autofocus>Keep as it is</button>
      </div>
    </dialog>
  );
}
