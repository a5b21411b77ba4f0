// Typed lint, and the layers of agent/: main → cli → {app, publisher, fleet} → {effects, core}, effects → core.
import js from "@eslint/js";
import tseslint from "typescript-eslint";

/** Forbids imports from other layers, and from anything but a few modules for `core`. */
function layer(name, forbidden, extra = []) {
  return {
    files: [`agent/${name}/**/*.ts`],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            ...forbidden.map((other) => ({
              group: [`**/${other}/*`],
              message: `${name}/ does not know ${other}/ (see DESIGN: layers).`,
            })),
            ...extra,
          ],
        },
      ],
    },
  };
}

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
  layer(
    "core",
    ["effects", "app", "publisher", "fleet", "cli"],
    [
      {
        regex: "^(?!zod$|node:crypto$|node:zlib$|\\./)",
        message: "core/ is pure: zod, node:crypto, node:zlib and itself only.",
      },
    ],
  ),
  layer("effects", ["app", "publisher", "fleet", "cli"]),
  layer("app", ["publisher", "fleet", "cli"]),
  layer("publisher", ["app", "fleet", "cli"]),
  layer("fleet", ["app", "publisher", "cli"]),
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
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly" } },
  },
);
