# Replace this file by what `nixos-generate-config --show-hardware-config` prints on the host. Keep
# the lines about the boot loader.
{
  nixpkgs.hostPlatform = "x86_64-linux";

  boot.loader.grub.device = "/dev/sda";

  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };
}
