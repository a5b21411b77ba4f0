import { join } from "node:path";
import type { BootLoader } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { EFI_VARIABLES } from "./efi-variables.ts";
import { grub, isGrub, type GrubPlaces } from "./grub.ts";
import { isSystemdBoot, systemdBoot } from "./systemd-boot.ts";

/** Where the kernels are if nothing else is known. */
const USUAL_BOOT = "/boot";

/** Where a host's boot loader is looked for. */
export interface BootLoaderPlaces extends GrubPlaces {
  /** The directory of EFI variables. */
  readonly variables: string;
}

/** This host's boot loader. */
export function bootLoaderOf({
  paths,
}: {
  paths: Pick<Settings["paths"], "boot" | "currentSystem">;
}): BootLoader {
  return detectedLoader({
    boot: paths.boot ?? USUAL_BOOT,
    programs: join(paths.currentSystem, "sw/bin"),
    variables: EFI_VARIABLES,
  });
}

/** The boot loader that is found at these places, looked for anew in each call. */
export function detectedLoader(places: BootLoaderPlaces): BootLoader {
  const loader = async (): Promise<BootLoader> => {
    if (await isSystemdBoot(places.variables)) return systemdBoot(places.variables);
    return (await isGrub(places)) ? grub(places) : unknownLoader(places.boot);
  };
  return {
    look: async () => (await loader()).look(),
    tryOnce: async (trial) => (await loader()).tryOnce(trial),
    isTrialPending: async () => (await loader()).isTrialPending(),
    cancelTrial: async () => (await loader()).cancelTrial(),
    kernelPlace: async () => (await loader()).kernelPlace(),
  };
}

/** A boot loader that nothing is asked of, as in a sandbox. */
export function unknownLoader(boot = USUAL_BOOT): BootLoader {
  const why = "this boot loader is not known to start a system once";
  return {
    look: async () => ({ name: null, cannotTry: why }),
    tryOnce: async () => why,
    isTrialPending: async () => false,
    cancelTrial: async () => undefined,
    kernelPlace: async () => ({ directory: boot, removesFirst: false }),
  };
}
