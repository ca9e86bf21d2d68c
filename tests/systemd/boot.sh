#!/bin/sh
# Boots this machine's own systemd as process 1 of namespaces of its own, over a copy-on-write view of this machine.
#
#   boot.sh SCRATCH SHARED      SCRATCH: an empty folder; SHARED: a folder that both sides see at the same path, writable
#
# It runs until its init is killed; nothing that it writes reaches this machine, except under SHARED. The network is this
# machine's, so that a broker on loopback is there. Of the units that systemd starts by itself only the journal is left:
# the others set kernel parameters, clocks and devices, which are this machine's. Needs root and a cgroup2 mount.
set -eu
scratch=$1 shared=$2

if [ -z "${INSIDE:-}" ]; then
    group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/edge-lstm-test-$$
    mkdir "$group"
    # from here on a process of that group, and so systemd believes that the group is the whole machine's
    echo $$ >"$group/cgroup.procs"
    export INSIDE=1
    exec unshare --mount --cgroup --uts --ipc --pid --fork --kill-child --propagation private "$0" "$scratch" "$shared"
fi

root=$scratch/root
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"

# this machine's services, disks (fstab) and consoles are not started again in here
rm -rf "$root"/etc/systemd/system "$root"/usr/lib/systemd/system/*.wants "$root"/usr/lib/systemd/system-generators \
    "$root"/etc/edge-lstm
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -s /usr/lib/systemd/system/systemd-journald.service "$root/etc/systemd/system/sysinit.target.wants/"

# not chroot: the kernel allows no user namespaces in one, and the unit has PrivateUsers=
cd "$root"
mkdir former
pivot_root . former
umount --lazy /former
# as a container's manager does: systemd hands credentials over by mounts that propagate
mount --make-rshared /
exec env -i container=docker PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /usr/lib/systemd/systemd --log-target=journal --log-level=info --unit=multi-user.target </dev/null
