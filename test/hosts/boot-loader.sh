#!/bin/sh
# The boot loader of a test host: hands over to the init of the default system.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
default=$(cat /boot/loader/default)
if ! [ -x "$default/init" ]; then
  echo "boot loader: no init in '$default'"
  exit 1
fi
exec "$default/init" "$@"
