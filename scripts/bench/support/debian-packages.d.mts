/** Installs the Debian packages that are missing; throws with their names where this is not root. */
export function installMissing(): void;
