# Replace this by what `nixos-generate-config --show-hardware-config` prints on the host, and
# keep the boot loader.
{
  nixpkgs.hostPlatform = "x86_64-linux";

  boot.loader.grub.device = "/dev/sda";

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
