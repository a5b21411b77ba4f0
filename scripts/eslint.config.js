// Typed lint, and the layers of agent/.
import { dirname, join, relative, resolve, sep } from "node:path";
import js from "@eslint/js";
import tseslint from "typescript-eslint";

/** The layers of agent/ and what each may import, beside itself. `main.ts` is above them all. */
const MAY_IMPORT = {
  core: [],
  effects: ["core"],
  host: ["effects", "core"],
  operator: ["effects", "core"],
  fleet: ["effects", "core"],
  cli: ["host", "operator", "fleet", "effects", "core"],
};
/**
 * What `core/` may import from elsewhere: it does no I/O. Of node-cron only what
 * `core/schedule/cron.ts` has of it: the parser and the judge of a day.
 */
const PURE_PACKAGES = ["zod", "node-cron", "node:crypto", "node:url", "node:zlib"];
const AGENT = join(process.cwd(), "agent");

/** The one file of host/ that may know effects. */
const COMPOSE = join(AGENT, "host", "compose.ts");

/**
 * The modules of operator/ and fleet/ that may use plain paths, since theirs are the operator's own:
 * a publish's work directory, which it just made, and its cache; a starting repository; key files; the
 * memories of `fleet` and of signers. Mirrors, sticks, drafts and reports may come from somebody else, so all other
 * modules use RootDirectory (agent/effects/files/root-directory.ts).
 */
const PLAIN_PATHS = [
  "agent/operator/channel/signer-memory-file.ts",
  "agent/operator/publish/archive-packer.ts",
  "agent/operator/publish/blob-archive.ts",
  "agent/operator/publish/delta-packer.ts",
  "agent/operator/publish/index-patches.ts",
  "agent/operator/publish/nar-cache.ts",
  "agent/operator/publish/nar-compressor.ts",
  "agent/operator/publish/hosts-file.ts",
  "agent/operator/publish/nix-builder.ts",
  "agent/operator/publish/packable-closure.ts",
  "agent/operator/repository/template-file.ts",
  "agent/fleet/host-keys.ts",
  "agent/fleet/memory.ts",
];

/** What follows links in a path. Types, and the reading of a file that is open, are no danger. */
const FOLLOWS_LINKS = {
  paths: ["fs", "fs/promises", "node:fs", "node:fs/promises"].map((name) => ({
    name,
    allowTypeImports: true,
    message: "Mirrors, sticks and reports are hostile: use RootDirectory.",
  })),
  patterns: [
    {
      regex: "/effects/files/(durable-file|checked-file)\\.ts$",
      importNamePattern: "^(write|remove|read|sync|checkedFilesIn)",
      message: "Mirrors, sticks and reports are hostile: use RootDirectory.",
    },
    {
      regex: "/effects/files/(missing-file|regular-file|make-directory)\\.ts$",
      importNamePattern:
        "^(makeDirectory|exists|readIfExists|readLinkIfExists|openRegularFile|readRegularFile)$",
      message: "Mirrors, sticks and reports are hostile: use RootDirectory.",
    },
  ],
};

/** Which layer of agent/ a file is in: its first folder. */
const layerOf = (file) => relative(AGENT, file).split(sep)[0];

/** A file imports only from its own layer and the layers below it (agent/docs/architecture.md). */
const layers = {
  meta: { type: "problem", schema: [] },
  create(context) {
    const file = context.filename;
    const layer = layerOf(file);
    const allowed = MAY_IMPORT[layer];
    if (!allowed) return {};
    const check = ({ source }) => {
      if (!source) return;
      const name = source.value;
      if (!name.startsWith(".")) {
        if (layer !== "core" || PURE_PACKAGES.includes(name)) return;
        context.report({ node: source, message: `core/ is pure: it must not import ${name}.` });
        return;
      }
      const other = layerOf(resolve(dirname(file), name));
      if (layer === "host" && other === "effects" && file !== COMPOSE) {
        const message = "host/ reaches the outside world through ports; compose.ts makes effects.";
        context.report({ node: source, message });
        return;
      }
      if (other === layer || allowed.includes(other)) return;
      context.report({ node: source, message: `${layer}/ must not import from ${other}/.` });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
    };
  },
};

export default tseslint.config(
  { ignores: ["dist/", "node_modules/"] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: { project: "./tsconfig.json", tsconfigRootDir: process.cwd() },
    },
    rules: {
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowNullish: true, allowBoolean: true },
      ],
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_" },
      ],
      "@typescript-eslint/dot-notation": "off",
      "@typescript-eslint/require-await": "off",
      "@typescript-eslint/only-throw-error": ["error", { allowThrowingUnknown: true }],
      "@typescript-eslint/prefer-promise-reject-errors": ["error", { allowThrowingUnknown: true }],
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "no-control-regex": "off",
    },
  },
  {
    files: ["agent/**/*.ts"],
    plugins: { agent: { rules: { layers } } },
    rules: { "agent/layers": "error" },
  },
  {
    files: ["agent/operator/**/*.ts", "agent/fleet/**/*.ts"],
    ignores: PLAIN_PATHS,
    rules: { "@typescript-eslint/no-restricted-imports": ["error", FOLLOWS_LINKS] },
  },
  {
    // What `--json` printed is asserted on, not typed.
    files: ["test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-explicit-any": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
  { files: ["**/*.js", "**/*.mjs"], extends: [tseslint.configs.disableTypeChecked] },
  {
    files: ["**/*.mjs", "**/*.js"],
    languageOptions: {
      globals: {
        process: "readonly",
        console: "readonly",
        URL: "readonly",
        AbortController: "readonly",
      },
    },
  },
);
