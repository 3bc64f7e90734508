#!/bin/busybox sh
# First process of the guest: mounts the host's root, read-only below a layer in memory, and goes there.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

give_up() {
    echo "guest: $*" >/dev/console
    echo o >/proc/sysrq-trigger
    while :; do sleep 1; done # the end of this process would be a kernel panic
}

modprobe -a virtio_pci 9pnet_virtio 9p overlay virtio_console || give_up "no drivers"
root=trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288,access=any
mount -t 9p -o $root hostroot /host || give_up "no root of the host"
mount -t tmpfs -o size=75% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /newroot || give_up "no root"
mount -t tmpfs run /newroot/run
mkdir -p /newroot/run/guest /newroot/run/lock
share=trans=virtio,version=9p2000.L,cache=none,msize=524288,access=any
mount -t 9p -o $share share /newroot/run/guest || give_up "no shared folder"
for mount in proc sys dev; do
    mount -o move /$mount /newroot/$mount
done
mkdir -p /newroot/dev/shm /newroot/dev/pts /newroot/lib/modules
mount -t tmpfs -o mode=1777 shm /newroot/dev/shm
mount -t devpts pts /newroot/dev/pts
cp -r /lib/modules/* /newroot/lib/modules/
cp /bin/busybox /session.sh /newroot/run/
exec switch_root /newroot /bin/sh /run/session.sh
