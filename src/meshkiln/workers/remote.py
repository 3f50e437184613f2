"""The runner for stages that other servers compute: it waits on the caller's thread and takes nobody's worker."""

from __future__ import annotations

from meshkiln.engines.upstream.call import Question
from meshkiln.engines.upstream.upstreams import Upstreams
from meshkiln.workers.processes import Pool
from meshkiln.workers.task import Payload, Ran, Runner, Task


def remote(upstreams: Upstreams, pool: Pool) -> Runner:
    """A runner that sends every task to `upstreams`; `pool`, whose estimates admission uses, is told what it costs."""

    def run(task: Task) -> Ran:
        question = Question.of(task.inputs[0].data, task.parameters, task.trace)
        data, seconds = upstreams.run(question, task.urgency, task.report)
        pool.learn(task.stage, task.parameters, seconds)
        return Ran(Payload(data, task.stage.media_type), seconds)

    return run
