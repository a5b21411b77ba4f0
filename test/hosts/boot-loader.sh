#!/bin/sh
# The boot loader of a test host: hands over to the init of the default system. With a menu of
# GRUB it does what GRUB does with that menu and its environment block: `next_entry` is started
# once, and forgotten before.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
menu=/boot/grub/grub.cfg
environment=/boot/grub/grubenv

# init_of TITLE: the init of the first entry with this title, or of the first entry of all.
init_of() {
  awk -v wanted="$1" '
    $1 == "menuentry" { split($0, parts, "\""); title = parts[2] }
    $1 == "linux" && (wanted == "" || title == wanted) {
      for (i = 2; i <= NF; i++) if (sub(/^init=/, "", $i)) { print $i; exit }
    }' $menu
}

if [ -e $menu ]; then
  next=$(sed -n 's/^next_entry=//p' $environment 2>/dev/null)
  if [ -n "$next" ]; then
    # In place, as GRUB writes it; the block keeps its size.
    block=$(sed -e 's/#*$//' -e 's/^next_entry=.*/next_entry=/' $environment && printf x)
    block=${block%x}
    { printf '%s' "$block" && head -c $((1024 - ${#block})) /dev/zero | tr '\0' '#'; } >$environment.block
    cat $environment.block >$environment && rm $environment.block
    init=$(init_of "${next##*>}")
  fi
  # Whatever is not in the menu, the first entry is started.
  [ -n "$init" ] || init=$(init_of "")
else
  init=$(cat /boot/loader/default)/init
fi
if ! [ -x "$init" ]; then
  echo "boot loader: no init at '$init'"
  exit 1
fi
exec "$init" "$@"
