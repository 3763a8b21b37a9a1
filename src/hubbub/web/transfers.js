/** Puts large messages together again from the chunks they come in (spec/protocol.md §7). */

const MOST = 4;
const MOST_PARTS = 4_096;
const MOST_CHARACTERS = 44_000; // of base64: 32 KiB are 43,692

/** The unfinished transfers of one connection. */
export class Transfers {
  #unfinished = new Map();

  /** Takes a part: the text of the whole message with the last one, else undefined. Throws where it makes no sense. */
  add({ id, index, total, data }) {
    if (!this.#unfinished.has(id)) {
      if (this.#unfinished.size >= MOST || !(total <= MOST_PARTS)) throw new Error("The server sends too many chunks.");
      this.#unfinished.set(id, { total, texts: [], decoder: new TextDecoder("utf-8", { fatal: true }) });
    }
    const transfer = this.#unfinished.get(id);
    const { texts, decoder } = transfer;
    if (index !== texts.length || total !== transfer.total || !(data.length <= MOST_CHARACTERS)) {
      throw new Error("The server sends a chunk out of order.");
    }
    // A character may be cut in two: the decoder keeps its beginning for the next part.
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    texts.push(decoder.decode(bytes, { stream: texts.length + 1 < total }));
    if (texts.length < total) return undefined;
    this.#unfinished.delete(id);
    return texts.join("");
  }
}
