// Variables in the flash memory of OVMF (UEFI Platform Initialization: authenticated variables).

const START = 0x55aa;
const HEADER_BYTES = 60;
/** Of a variable's states, the only one in which it counts: it was added and not deleted. */
const ADDED = 0x3f;
const ERASED = 0xffffffff;
/** Where the first variable is: behind the headers of the firmware volume and of the store. */
const FIRST = 0x48 + 0x1c;

/** The values of all variables by their names, as the bytes of a flash memory have them. */
export function readVariables(flash) {
  const variables = new Map();
  for (let at = FIRST; flash.readUInt16LE(at) === START;) {
    const state = flash[at + 2];
    const nameBytes = flash.readUInt32LE(at + 36);
    const valueBytes = flash.readUInt32LE(at + 40);
    // Erased flash has ones: the firmware is in the middle of adding this one.
    if (nameBytes === ERASED || valueBytes === ERASED) break;
    const name = flash.subarray(at + HEADER_BYTES, at + HEADER_BYTES + nameBytes);
    const begin = at + HEADER_BYTES + nameBytes;
    if (state === ADDED) {
      const text = name.toString("utf16le").replace(/\0$/, "");
      variables.set(text, flash.subarray(begin, begin + valueBytes));
    }
    // Each begins at a multiple of four bytes.
    at = Math.ceil((begin + valueBytes) / 4) * 4;
  }
  return variables;
}
