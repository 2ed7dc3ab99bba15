#!/bin/sh
# Process 1 of a guest: user-mode Linux on this machine's own files, with nothing but the kernel's NFS client added.
# The kernel hands words of its command line on as variables: share (a folder that the guest may write to), address and
# gateway (of its network), server, port, mount_port and export (what is mounted).
# It does what it reads from its console, a line each: a name of a step in steps.sh, and `root` or `user`. It answers
# "@ready" once the export is mounted, and "@end STATUS" after each step, whose output is in $share/step.log.
export PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin HOME=/run LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /mnt
mount -t tmpfs -o mode=1777 tmpfs /tmp
stty -F /dev/console -echo -onlcr
mkdir /run/share /run/tools /run/user /mnt/nfs
chown 1077:1077 /run/user
mount -t hostfs -o "$share" hostfs /run/share
# Where this project lies, only root may look, perhaps.
cp /run/share/tools/* /run/tools/

modules=/usr/lib/uml/modules/$(uname -r)/kernel
for module in net/sunrpc/sunrpc fs/netfs/netfs fs/fscache/fscache fs/nfs_common/nfs_acl fs/nfs_common/grace \
    fs/lockd/lockd fs/nfs/nfs fs/nfs/nfsv3; do
    busybox insmod "$modules/$module.ko" || echo "@failed insmod $module"
done
ip link set lo up
ip link set vec0 up
ip address add "$address/24" dev vec0
ip route add default via "$gateway"

. /run/share/tools/steps.sh
mount_export || echo "@failed mount $server:$export"
echo @ready
while read -r step who; do
    # Not a subshell of this one: a step may be ended by a signal.
    as "$who" bash /run/tools/steps.sh "$step" > /run/share/step.log 2>&1 < /dev/null
    echo "@end $?"
done
busybox poweroff -f
