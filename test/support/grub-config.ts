/** A menu for GRUB, as far as tests differ by it. Systems are names of store paths. */
export interface MenuContents {
  /** The system of the first entry. */
  readonly default: string;
  /** Systems by the number of their generation. */
  readonly generations: Readonly<Record<number, string>>;
  /** Systems with specialisations: they have a submenu of their own. */
  readonly specialised?: readonly string[];
  readonly defaultItem?: string;
}

/** A `grub.cfg` with the structure that NixOS's installer gives it. */
export function grubConfig(contents: MenuContents): string {
  const { generations, specialised = [], defaultItem = "0" } = contents;
  const entry = (title: string, system: string): string => `menuentry "${title}" --class nixos {
search --set=drive1 --fs-uuid 1234-5678
  linux ($drive1)/kernels/linux init=/nix/store/${system}/init loglevel=4
  initrd ($drive1)/kernels/initrd
}
`;
  const generation = (number: number, system: string): string => {
    const name = `NixOS - Configuration ${number}`;
    const suffix = ` (2026-01-0${number} - 26.11)`;
    if (!specialised.includes(system)) return entry(`${name}${suffix}`, system);
    return `submenu "> ${name}${suffix}" --class submenu {
${entry(`${name} - Default${suffix}`, system)}
${entry(`${name} - (quiet - 2026 - 26.11)`, `${system}-quiet`)}
}
`;
  };
  const numbers = Object.keys(generations)
    .map(Number)
    .sort((a, b) => b - a);
  return `# Automatically generated.
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "\${next_entry}" ]; then
  set default="\${next_entry}"
  set next_entry=
  save_env next_entry
  set timeout=1
  set boot_once=true
else
  set default=${defaultItem}
  set timeout=5
fi
function savedefault {
    if [ -z "\${boot_once}"]; then
    saved_entry="\${chosen}"
    save_env saved_entry
    fi
}
if [ "\${grub_platform}" = "efi" ]; then
  insmod efi_gop
fi
${entry("NixOS", contents.default)}
submenu "NixOS - All configurations" --class submenu {
${numbers.map((number) => generation(number, generations[number] ?? "")).join("\n")}
}
`;
}
