// Watches the order of every durable write: the contents are flushed before they get their name,
// and the name is flushed before anything follows from it (fsync(2), rename(2)). crash-points.mjs
// tells it what the agent does; what is wrong is appended to a file that the tests look at.
import fs from "node:fs";
import { dirname } from "node:path";

export class DurableOrder {
  /** Files whose contents are written and not flushed. */
  #unflushed = new Set();
  /** Directories with names that were put there and not flushed, by the last of them. */
  #unnamed = new Map();
  #file;

  /** `file` is where faults are appended to. */
  constructor(file) {
    this.#file = file;
  }

  wrote(path) {
    this.#unflushed.add(String(path));
  }

  /** A file or a directory was flushed. */
  flushed(path) {
    this.#unflushed.delete(String(path));
    this.#unnamed.delete(String(path));
  }

  /** Before a file or a link gets the name `to`, which tests know as `name`. */
  renames(from, to, name) {
    if (this.#unflushed.delete(String(from))) this.#fault(`${name} got its name before its fsync`);
    this.#unnamed.set(dirname(String(to)), name);
  }

  /** Before something that counts on all names being on the disk. */
  counts(what) {
    for (const name of this.#unnamed.values()) {
      this.#fault(`${name} was renamed, and its directory not flushed before: ${what}`);
    }
    this.#unnamed.clear();
  }

  #fault(text) {
    fs.appendFileSync(this.#file, `${text}\n`);
  }
}
