#!/bin/busybox sh
# The initrd of a machine with a real boot loader: drivers, /boot, and the system that the
# kernel's command line names (init=, root=). initrd=hang never gets there.
busybox=/bin/busybox
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net nls_cp437 nls_ascii fat vfat efivarfs"
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
for module in $modules; do
  [ -e /modules/$module.ko ] && $busybox insmod /modules/$module.ko
done
root=/dev/vda
for word in $($busybox cat /proc/cmdline); do
  case $word in
    init=*) init=${word#init=} ;;
    root=*) root=${word#root=} ;;
    test.initrd=hang)
      echo "initrd: hangs"
      while :; do $busybox sleep 3600; done
      ;;
  esac
done
i=0
while [ ! -b "$root" ] && [ $i -lt 50 ]; do
  $busybox sleep 0.1
  i=$((i + 1))
done
# PID 1 ends, so the kernel panics, as in NixOS's stage 1 with boot.panic_on_fail.
if ! $busybox mount -t ext4 "$root" /root; then
  echo "initrd: no root"
  exit 1
fi
if [ -b /dev/vdb1 ]; then
  $busybox mount -t vfat -o umask=0077 /dev/vdb1 /root/boot 2>/dev/null ||
    $busybox mount -t ext4 /dev/vdb1 /root/boot
fi
$busybox ip link set eth0 name host0
$busybox mount -t tmpfs -o mode=755 tmpfs /root/run
for directory in proc sys dev; do $busybox mount -o move /$directory /root/$directory; done
exec $busybox switch_root /root "$init"
