import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { hashMachineId } from "../../../agent/core/machine-id.ts";

const ID = "0123456789abcdef0123456789abcdef";
const HASH = createHash("sha256").update(`nixos-pull machine 1\n${ID}`).digest("hex");

test("a machine-id is hashed with our prefix, without white space around it", () => {
  for (const text of [ID, `${ID}\n`, ` ${ID}\t`]) expect(hashMachineId(text)).toBe(HASH);
});

test("what is no machine-id has no hash", () => {
  for (const text of ["", "uninitialized", ID.slice(1), `${ID}0`, ID.toUpperCase(), `x${ID}`]) {
    expect(hashMachineId(text)).toBeNull();
  }
});
