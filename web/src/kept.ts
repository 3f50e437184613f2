// What survives a refresh: items in localStorage (one entry each, so that tabs do not overwrite each other's), their
// pictures in IndexedDB. A browser that refuses either (private windows) still works until the page is closed.

const PREFIX = "meshkiln.item.";
const memory = new Map<string, Blob>();

export function keptItems(): string[] {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX)).map((name) => localStorage.getItem(name) ?? "");
  } catch {
    return [];
  }
}

export function keptItem(id: string): string | null {
  try {
    return localStorage.getItem(PREFIX + id);
  } catch {
    return null;
  }
}

export function keepItem(id: string, text: string): void {
  try {
    localStorage.setItem(PREFIX + id, text);
  } catch {
    // full or refused: the item lives as long as the page
  }
}

export function dropItem(id: string): void {
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    // never kept
  }
  memory.delete(id);
  void transact("readwrite", (store) => store.delete(id));
  dropPainted(id);
}

/** Call `changed` with an item's id and text (null: gone) when another tab wrote it. */
export function onOtherTab(changed: (id: string, text: string | null) => void): void {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) changed(event.key.slice(PREFIX.length), event.newValue);
  });
}

export const isRecord = (found: unknown): found is Record<string, unknown> => typeof found === "object" && found !== null && !Array.isArray(found);

/** What was kept under a name; nothing, where what is there is no object. */
export function setting(name: string): Record<string, unknown> {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(`meshkiln.${name}`) ?? "{}");
    return isRecord(found) ? found : {};
  } catch {
    return {};
  }
}

export function keepSetting(name: string, value: unknown): void {
  try {
    localStorage.setItem(`meshkiln.${name}`, JSON.stringify(value));
  } catch {
    // refused
  }
}

/** What this tab keeps over a refresh, and no other tab knows. */
export function tabSetting(name: string): unknown {
  try {
    return JSON.parse(sessionStorage.getItem(`meshkiln.${name}`) ?? "null");
  } catch {
    return null;
  }
}

export function keepTabSetting(name: string, value: unknown): void {
  try {
    sessionStorage.setItem(`meshkiln.${name}`, JSON.stringify(value));
  } catch {
    // refused
  }
}

let opened: Promise<IDBDatabase | null> | null = null;

function database(): Promise<IDBDatabase | null> {
  opened ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("meshkiln", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("pictures");
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
      request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opened;
}

/** What a request gives, once its transaction is complete: a page that goes before that takes what it wrote along. */
async function transact<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | null> {
  const base = await database();
  if (base === null) return null;
  return new Promise((resolve) => {
    try {
      const transaction = base.transaction("pictures", mode);
      const request = act(transaction.objectStore("pictures"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}

export async function keepPicture(id: string, picture: Blob): Promise<void> {
  memory.set(id, picture);
  await transact("readwrite", (store) => store.put(picture, id));
}

export async function pictureOf(id: string): Promise<Blob | null> {
  const found = memory.get(id) ?? ((await transact("readonly", (store) => store.get(id))) as Blob | null | undefined);
  if (found) memory.set(id, found);
  return found ?? null;
}

/** What was painted on a picture with the brush: its mask, and what it was painted on. */
const painted = (id: string): string => `painted ${id}`;

export async function keepPainted(id: string, of: string, mask: Blob): Promise<void> {
  await transact("readwrite", (store) => store.put({ of, mask }, painted(id)));
}

/** The mask that was painted on `of`, if any was. */
export async function paintedOf(id: string, of: string): Promise<Blob | null> {
  const found: unknown = await transact("readonly", (store) => store.get(painted(id)));
  return isRecord(found) && found.of === of && found.mask instanceof Blob ? found.mask : null;
}

export function dropPainted(id: string): void {
  void transact("readwrite", (store) => store.delete(painted(id)));
}
