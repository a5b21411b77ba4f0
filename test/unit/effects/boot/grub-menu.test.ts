import { describe, expect, test } from "vitest";
import { initOf, parseGrubMenu, pathOf } from "../../../../agent/effects/boot/grub-menu.ts";
import { grubConfig } from "../../../support/grub-config.ts";

const MENU = parseGrubMenu(
  grubConfig({ default: "aaa-1", generations: { 2: "bbb-2", 1: "aaa-1" }, specialised: ["bbb-2"] }),
);

describe("a grub.cfg as NixOS writes it", () => {
  test("starts next_entry once, and the first entry otherwise", () => {
    expect(MENU).toMatchObject({ triesOnce: true, defaultItem: "0" });
    expect(initOf(MENU.items, MENU.defaultItem)).toBe("/nix/store/aaa-1/init");
  });

  test("names an entry by titles, or by a number if its title begins with a >", () => {
    expect(pathOf(MENU.items, "/nix/store/bbb-2/init")).toBe(
      "NixOS - All configurations>0>NixOS - Configuration 2 - Default (2026-01-02 - 26.11)",
    );
    expect(pathOf(MENU.items, "/nix/store/aaa-1/init")).toBe("NixOS");
    expect(pathOf(MENU.items, "/nix/store/ccc-3/init")).toBeNull();
  });

  test("has the saved entry as its default if it is to be remembered", () => {
    const menu = parseGrubMenu(
      grubConfig({
        default: "aaa-1",
        generations: { 1: "aaa-1" },
        defaultItem: '"${saved_entry}"',
      }),
    );
    expect(menu.defaultItem).toBe("${saved_entry}");
  });
});

describe("what an item starts", () => {
  const items = MENU.items;
  test.each([
    ["the title of an entry", "NixOS", "/nix/store/aaa-1/init"],
    ["its number", "0", "/nix/store/aaa-1/init"],
    ["numbers below a submenu", "1>1", "/nix/store/aaa-1/init"],
    ["nothing, which is the first", "", "/nix/store/aaa-1/init"],
    ["a title that is not there", "Windows", "/nix/store/aaa-1/init"],
    ["titles and numbers", pathOf(items, "/nix/store/bbb-2/init") ?? "", "/nix/store/bbb-2/init"],
  ])("is found by %s", (_, path, init) => {
    expect(initOf(items, path)).toBe(init);
  });

  test("is found by a title that has a > in it", () => {
    const odd = parseGrubMenu(
      'menuentry "A" {\n linux /k init=/a\n}\nmenuentry "B > C" {\n linux /k init=/b\n}\n',
    );
    expect(pathOf(odd.items, "/b")).toBe("B >> C");
    expect(initOf(odd.items, "B >> C")).toBe("/b");
  });

  test("is nothing in an empty menu", () => {
    expect(initOf([], "0")).toBeNull();
  });
});

test("a menu that does not know next_entry tries nothing", () => {
  expect(parseGrubMenu('set default=0\nmenuentry "A" {\n linux /k init=/a/init\n}\n')).toEqual({
    items: [{ title: "A", init: "/a/init", items: [] }],
    ...{ triesOnce: false, defaultItem: "0" },
  });
});
