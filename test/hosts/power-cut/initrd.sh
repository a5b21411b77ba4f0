#!/bin/busybox sh
# The initrd of a test machine: drivers, the root file system, the boot loader.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
  virtio_blk failover net_failover virtio_net; do
  [ -e /modules/$module.ko ] && $busybox insmod /modules/$module.ko
done
i=0
while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do
  $busybox sleep 0.1
  i=$((i + 1))
done
# A journal that the power cut left is replayed here.
$busybox mount -t ext4 /dev/vda /root || exec $busybox poweroff -f
$busybox ip link set eth0 name host0
$busybox mount -t tmpfs -o mode=755 tmpfs /root/run
for directory in proc sys dev; do $busybox mount -o move /$directory /root/$directory; done
exec $busybox switch_root /root /usr/local/sbin/boot-loader
