# The machines of the tests: a mirror, where releases are published too, and a host.
{
  keys,
  package,
  publicKey,
}:
{
  # `next` is what the released system has beyond the one that is booted.
  host =
    { next, settings }:
    {
      extendModules,
      lib,
      pkgs,
      ...
    }:
    {
      imports = [ ../. ];

      options.released = lib.mkOption {
        type = lib.types.package;
        description = "The system that is released for this host. Nothing of the booted one refers to it.";
      };

      config = {
        released = (extendModules { modules = [ next ]; }).config.system.build.toplevel;

        services.nixos-pull = {
          enable = true;
          inherit package;
          settings = lib.mkMerge [
            {
              mirrors = [ "http://mirror" ];
              publicKeys = [ publicKey ];
            }
            settings
          ];
        };

        environment.systemPackages = [ pkgs.jq ];
        system.switch.enable = true;

        # The machine is booted by QEMU, so that there is no boot loader to install.
        boot.loader.external = {
          enable = true;
          installHook = "${pkgs.coreutils}/bin/true";
        };
        systemd.tmpfiles.rules = [ "d /boot 0755 root root" ];

        virtualisation = {
          memorySize = 2048;
          diskSize = 4096;
          writableStore = true;
          writableStoreUseTmpfs = false;
        };
      };
    };

  mirror =
    { nodes, pkgs, ... }:
    {
      networking.firewall.allowedTCPPorts = [ 80 ];
      services.nginx = {
        enable = true;
        virtualHosts.mirror.root = "/srv/mirror";
      };
      systemd.tmpfiles.rules = [ "d /srv/mirror 0755 root root" ];

      environment.systemPackages = [
        package
        pkgs.curl
      ];

      virtualisation = {
        memorySize = 2048;
        diskSize = 8192;
        writableStore = true;
        # What is published has to be valid in the store of this machine.
        additionalPaths = [
          nodes.host.released
          keys
        ];
      };
    };
}
