#!/bin/sh
# What NixOS's stage 2 does before systemd: activates the booted system.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
toplevel=@TOPLEVEL@
echo "<<< NixOS Stage 2: $toplevel >>>"
if [ -n "@FAILS@" ]; then
  echo "stage 2 failed"
  exit 1
fi
mkdir -p /run/nixos
ln -sfn "$toplevel" /run/booted-system
"$toplevel/activate"
echo "starting systemd..."
exec /usr/lib/systemd/systemd "$@"
