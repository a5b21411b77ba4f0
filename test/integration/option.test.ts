import { cp, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { nixosPull, type CommandOutput } from "../support/nixos-pull.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const DIRECTORY = suiteDirectory();
/** nixpkgs' own `lib`, if it is there; the stand-in does the same as far as these tests use it. */
const LIB = process.env["NIXOS_PULL_NIXPKGS"]
  ? `${process.env["NIXOS_PULL_NIXPKGS"]}/lib`
  : fileURLToPath(new URL("../nixos-module/stand-in-lib.nix", import.meta.url));
const PORTS = "networking.firewall.allowedTCPPorts";

/** What all hosts have: the options, their defaults, and values that single hosts override. */
const COMMON = `{ lib, config, ... }:
let inherit (lib) mkOption types; in
{
  options = {
    assertions = mkOption { type = types.listOf types.raw; default = [ ]; };
    warnings = mkOption { type = types.listOf types.str; default = [ ]; };
    networking.firewall.allowedTCPPorts = mkOption {
      type = types.listOf types.int; default = [ ]; description = "TCP ports that are open.";
    };
    networking.hostName = mkOption { type = types.str; };
    networking.domain = mkOption { type = types.nullOr types.str; };
    services.web.enable = lib.mkEnableOption "a web server";
    services.sites = mkOption {
      default = { };
      type = types.attrsOf (types.submodule {
        options.root = mkOption { type = types.str; description = "Where its files are."; };
        options.port = mkOption { type = types.int; default = 80; };
      });
    };
    services.listeners = mkOption {
      default = [ ];
      type = types.listOf (types.submodule {
        options.port = mkOption { type = types.int; description = "The port of a listener."; };
      });
    };
    services.raw = mkOption { type = types.raw; default = { }; };
  };
  config = lib.mkMerge [
    { networking.firewall.allowedTCPPorts = lib.mkDefault [ 8080 ]; }
    (lib.mkIf config.services.web.enable { services.sites."example.org".root = "/srv/common"; })
    {
      assertions = [
        # The message of an assertion that holds is not to be read: Nix cannot evaluate it.
        { assertion = true; message = "never \${1 + "x"}"; }
        { assertion = config.networking.hostName != "db1"; message = "db1 is no good name"; }
      ];
      warnings = lib.optional config.services.web.enable "a web server is old-fashioned";
    }
  ];
}`;

const HOSTS: Readonly<Record<string, string>> = {
  web1: `{ lib, config, ... }: {
    imports = [ ./common.nix ];
    networking.firewall.allowedTCPPorts = lib.mkMerge [
      [ 80 ] (lib.mkIf config.services.web.enable [ 443 ]) (lib.mkIf false [ 1 ])
    ];
    networking.hostName = lib.mkForce "forced";
    services.web.enable = true;
    services.sites."example.org" = { root = lib.mkForce "/srv/forced"; };
    services.sites.other = lib.mkIf true { root = "/srv/other"; };
    services.listeners = [ { port = 1; } { port = 2; } ];
    services.raw = { kept = 1; broken = throw "this part is broken"; };
  }`,
  db1: `{
    imports = [ ./common.nix ];
    networking.firewall.allowedTCPPorts = [ 5432 ];
    networking.domain = null;
  }`,
  bad1: `{
    imports = [ ./common.nix ./bad1-domain.nix ];
    networking.domain = "a";
    services.web.enable = "yes";
    services.listeners = throw "bad1 throws";
    networking.firewall.allowedTCPPorts = [ "a port" ];
  }`,
};

let file = "";
const ask = (...args: string[]): Promise<CommandOutput> =>
  nixosPull(["option", "--file", file, ...args]);
const linesOf = ({ stdout }: CommandOutput): string[] =>
  stdout
    .replaceAll(`${DIRECTORY}/`, "")
    .replace(/repository-\w+\//g, "")
    .split("\n");

beforeAll(async () => {
  const directory = await mkdtemp(join(DIRECTORY, "repository-"));
  file = join(directory, "nixos.nix");
  await writeFile(join(directory, "common.nix"), COMMON);
  await writeFile(join(directory, "bad1-domain.nix"), '{ networking.domain = "b"; }');
  for (const [name, text] of Object.entries(HOSTS)) {
    await writeFile(join(directory, `${name}.nix`), text);
  }
  await writeFile(
    file,
    `let lib = import ${LIB}; in
    builtins.mapAttrs (
      name: module:
      lib.evalModules {
        modules = [ module { _file = "hosts.nix"; networking.hostName = lib.mkDefault name; } ];
      } // { inherit lib; }
    ) { web1 = ./web1.nix; db1 = ./db1.nix; bad1 = ./bad1.nix; }`,
  );
});

describe("nixos-pull option shows", () => {
  test("the value on every host, what gives it, and what the option is", async () => {
    const output = await ask("networking.hostName");
    expect(output.exitCode, output.stderr).toBe(0);
    expect(linesOf(output).slice(0, 6)).toEqual([
      'bad1: networking.hostName = "bad1"',
      '  hosts.nix: "bad1" (mkDefault)',
      'db1: networking.hostName = "db1"',
      '  hosts.nix: "db1" (mkDefault)',
      'web1: networking.hostName = "forced"',
      '  web1.nix: "forced" (mkForce)',
    ]);
  });

  test("definitions that another one overrides, with their files, and none that does not hold", async () => {
    expect(linesOf(await ask(PORTS, "--host", "web1"))).toEqual([
      `web1: ${PORTS} = [ 80 443 ]`,
      "  web1.nix: [ 80 ]",
      "  web1.nix: [ 443 ]",
      "  common.nix: [ 8080 ] (mkDefault, overridden)",
      "type: list of signed integer",
      "default: [ ]",
      "declared in: common.nix",
      "",
      "TCP ports that are open.",
      "",
    ]);
    const { stdout } = await ask(PORTS, "--host", "db1", "--json");
    const definitions = [
      { file: expect.stringMatching(/db1\.nix$/), value: [5432], priority: 100 },
      {
        file: expect.stringMatching(/common\.nix$/),
        ...{ value: [8080], priority: 1000, overridden: true },
      },
    ];
    expect(JSON.parse(stdout)).toEqual({
      path: PORTS,
      hosts: [
        expect.objectContaining({ hostname: "db1", value: [5432], definitions, failedParts: [] }),
      ],
    });
  });

  test("options of submodules, with what they are", async () => {
    expect(linesOf(await ask('services.sites."example.org".root', "--host", "web1"))).toEqual([
      'web1: services.sites."example.org".root = "/srv/forced"',
      '  web1.nix: "/srv/forced" (mkForce)',
      '  common.nix: "/srv/common" (overridden)',
      "type: string",
      expect.stringMatching(/^declared in: /),
      "",
      "Where its files are.",
      "",
    ]);
  });

  test("what lists of submodules have", async () => {
    const all = await ask("services.listeners", "--host", "web1");
    expect(all.stdout).toContain("services.listeners = [ { port = 1; } { port = 2; } ]");
    const one = await ask("services.listeners.1.port", "--host", "web1");
    expect(one.stdout).toContain("web1: services.listeners.1.port = 2\n");
    expect(one.stdout).toContain("The port of a listener.");
    const none = await ask("services.listeners.2.port", "--host", "web1");
    expect(none.stderr).toContain("there is no option services.listeners.2.port");
  });

  test("values instead of mkIf, mkForce and the like", async () => {
    const { stdout } = await ask("services.sites", "--host", "web1", "--json");
    expect(stdout).not.toContain("_type");
    const text = await ask("services.sites", "--host", "web1");
    expect(linesOf(text)).toContain(
      '  web1.nix: { "example.org" = { root = "/srv/forced"; }; other = { root = "/srv/other"; }; }',
    );
  });

  test("a value of which a part fails, and with what it fails", async () => {
    const output = await ask("services.raw", "--host", "web1");
    expect(output.exitCode).toBe(0);
    expect(linesOf(output).slice(0, 2)).toEqual([
      'web1: services.raw = { broken = "«error»"; kept = 1; }',
      "  «error» of services.raw.broken: error: this part is broken",
    ]);
  });

  test("assertions that fail, and how many hold", async () => {
    const output = await ask("assertions");
    expect(output.exitCode, output.stderr).toBe(0);
    expect(linesOf(output).slice(0, 4)).toEqual([
      "bad1: assertions: all 2 hold",
      "db1: assertions: 1 of 2 fails",
      "  fails: db1 is no good name",
      "web1: assertions: all 2 hold",
    ]);
  });

  test("warnings", async () => {
    const { stdout } = await ask("warnings", "--host", "web1");
    expect(stdout).toContain('web1: warnings = [ "a web server is old-fashioned" ]');
  });
});

describe("hosts that have no value", () => {
  test("do not keep the others from answering", async () => {
    const output = await ask("services.listeners.0.port");
    expect(output.stderr).toMatch(/^nixos-pull: BUILD_FAILED: bad1: error: bad1 throws$/m);
    expect(output.exitCode).toBe(10);
    expect(output.stdout).toContain("web1: services.listeners.0.port = 1\n");
    expect(output.stdout).toContain("db1: there is no option services.listeners.0.port\n");

    const json = await ask("services.listeners.0.port", "--json");
    expect(json.exitCode).toBe(10);
    expect((JSON.parse(json.stdout) as { hosts: unknown[] }).hosts).toEqual([
      { hostname: "bad1", error: { code: "BUILD_FAILED", message: "error: bad1 throws" } },
      { hostname: "db1", error: expect.objectContaining({ code: "OPTION_UNKNOWN" }) },
      expect.objectContaining({ hostname: "web1", value: 1 }),
    ]);

    // To lack a value is no failure, as long as a host has one.
    const lacking = await nixosPull([
      "option",
      "--file",
      file,
      'services.sites."example.org".port',
    ]);
    expect(lacking.stderr).toContain("bad1: error:");
    expect(lacking.stdout).toContain('web1: services.sites."example.org".port = 80\n');
    expect(lacking.stdout).toContain('db1: there is no option services.sites."example.org".port\n');
  });

  test.each([
    ["networking.domain", /conflicting definition values/],
    ["services.web.enable", /`services\.web\.enable' is not of type `boolean'.*bad1\.nix/],
    [PORTS, /`networking\.firewall\.allowedTCPPorts.*is not of type `signed integer'/],
    ["services.listeners", /bad1 throws/],
  ])("say with Nix's own words what is wrong with %s", async (path, said) => {
    const output = await ask(path, "--host", "bad1");
    expect(output.stderr).toMatch(/^nixos-pull: BUILD_FAILED: bad1: error: /);
    expect(output.stderr).toMatch(said);
    expect(output.stderr).not.toContain("nothing defines it");
    expect(output).toMatchObject({ exitCode: 10, stdout: "" });
  });

  test("say that nothing defines it", async () => {
    const { stderr, exitCode } = await ask("networking.domain", "--host", "web1");
    expect(stderr).toContain(
      "OPTION_UNDEFINED: web1: networking.domain has no value: nothing defines it, and it has no default",
    );
    expect(exitCode).toBe(3);
  });

  test.each([
    ["networking.firewall.allowedTcpPort", "perhaps networking.firewall.allowedTCPPorts"],
    ["netwroking.hostName", "perhaps networking.hostName"],
    ["netwroking.firewal.allowedTcpPort", `perhaps ${PORTS}`],
    ['services.sites."example.com".root', "example.org"],
    ["services.sites.other.prot", "perhaps services.sites.other.port"],
    ["services.listeners.first", "services.listeners has 0, 1"],
    ["networking.firewall", "is no option but a set of: allowedTCPPorts"],
    ["nothing.like.it", "the configuration has assertions, networking, services, warnings"],
  ])("do not know %s", async (path, said) => {
    const { stderr, exitCode } = await ask(path, "--host", "web1");
    expect(stderr).toContain("OPTION_UNKNOWN");
    expect(stderr).toContain(said);
    expect(exitCode).toBe(2);
  });

  test("say so once if all of them lack it for the same reason", async () => {
    const { stderr } = await ask("networking.hostNam");
    expect(stderr).toBe(
      "nixos-pull: OPTION_UNKNOWN: there is no option networking.hostNam; perhaps networking.hostName\n",
    );
  });

  test("are not there", async () => {
    const { stderr } = await ask(PORTS, "--host", "web9");
    expect(stderr).toContain("no host web9; it has bad1, db1, web1");
  });
});

test.each(["a..b", "a.", 'a."${throw "x"}"', "a b", "a;b", "$(id)", 'a."b', "", "(import /x)"])(
  "%j is no option",
  async (path) => {
    const { stderr, exitCode } = await ask(path);
    expect(stderr).toContain("USAGE");
    expect(exitCode).toBe(2);
  },
);

test("modules may be written in any way, and be disabled", async () => {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "part"));
  const texts: Record<string, string> = {
    "options.nix": `{ lib, ... }: { options.it = lib.mkOption { type = lib.types.listOf lib.types.str; }; }`,
    "plain.nix": `{ it = [ "plain" ]; }`,
    "function.nix": `{ config, ... }: { config.it = [ "function" ]; }`,
    "forced.nix": `{ lib, ... }: { imports = [ ./part/imported.nix ]; it = lib.mkOverride 70 [ "forced" ]; }`,
    "part/imported.nix": `{ special, ... }: { it = [ special ]; }`,
  };
  for (const [name, text] of Object.entries(texts)) await writeFile(join(directory, name), text);
  const nixFile = join(directory, "nixos.nix");
  await writeFile(
    nixFile,
    `let lib = import ${LIB}; in
    lib.evalModules {
      specialArgs.special = "special";
      modules = [ ./options.nix ./plain.nix ./function.nix ./forced.nix ./plain.nix { it = [ "inline" ]; } ];
    } // { inherit lib; }`,
  );
  const output = await nixosPull(["option", "it", "--file", nixFile]);
  expect(output.stdout.replaceAll(`${directory}/`, "").split("\n").slice(0, 6).sort()).toEqual(
    [
      'it = [ "forced" ]',
      '  forced.nix: [ "forced" ] (mkOverride 70)',
      '  plain.nix: [ "plain" ] (overridden)',
      '  function.nix: [ "function" ] (overridden)',
      '  part/imported.nix: [ "special" ] (overridden)',
      '  an unknown file: [ "inline" ] (overridden)',
    ].sort(),
  );
});

test("one host of many that fails is found, and the others answer", async () => {
  const directory = await temporaryDirectory();
  const nixFile = join(directory, "nixos.nix");
  await cp(join(file, "../common.nix"), join(directory, "common.nix"));
  const names = Array.from({ length: 9 }, (_, at) => `h${at}`);
  await writeFile(
    nixFile,
    `let lib = import ${LIB}; in
    lib.genAttrs ${JSON.stringify(names).replaceAll(",", " ")} (name:
      lib.evalModules { modules = [ ./common.nix {
        networking.hostName = if name == "h4" then throw "h4 is broken" else name;
      } ]; } // { inherit lib; })`,
  );
  const { stdout, stderr } = await nixosPull(["option", "networking.hostName", "--file", nixFile]);
  for (const name of names.filter((it) => it !== "h4")) {
    expect(stdout).toContain(`${name}: networking.hostName = "${name}"\n`);
  }
  expect(stderr).toBe("nixos-pull: BUILD_FAILED: h4: error: h4 is broken\n");
});

test("the module system's own words are shown if a host does not tell its modules", async () => {
  const nixFile = join(await temporaryDirectory(), "nixos.nix");
  await writeFile(
    nixFile,
    `let
      option = {
        _type = "option";
        value = { text = "a\\nb"; list = [ 1 null true 1.5 ]; path = /etc/nix; call = x: x;
          package = { type = "derivation"; outPath = "/nix/store/x-curl"; }; broken = throw "no"; };
        isDefined = true;
        type.description = "something";
        default = throw "not to be read";
        defaultText = { _type = "literalExpression"; text = "pkgs.curl"; };
        description = { _type = "mdDoc"; text = "What it does."; };
        definitionsWithLocations = [ { file = /srv/a.nix; value = { list = [ 1 ]; }; } ];
        declarations = [ "/nixpkgs/x.nix" ];
      };
    in { options.some.thing = option; config.some.thing = option.value; }`,
  );
  const { stdout, stderr } = await nixosPull(["option", "some.thing", "--file", nixFile]);
  expect(stdout, stderr).toBe(
    'some.thing = { broken = "«error»"; call = "«function»"; list = [ 1 null true 1.5 ]; ' +
      'package = "/nix/store/x-curl"; path = "/etc/nix"; text = "a\\nb"; }\n' +
      "  «error» of some.thing.broken: error: no\n" +
      "  /srv/a.nix: { list = [ 1 ]; }\n" +
      "type: something\ndefault: pkgs.curl\ndeclared in: /nixpkgs/x.nix\n\nWhat it does.\n",
  );
});
