#!/bin/bash
# ganesha.sh PORT FSAL FOLDER [tmpfs]: NFS-Ganesha, in the foreground, until it gets a signal. The plain NFS server that BFS is
# compared with. It serves NFSv3 on PORT and MOUNT on PORT + 1, of every address in its network namespace.
# FSAL is MEM (files in the server's memory, exported as FOLDER) or VFS (the folder FOLDER, which gets a tmpfs of its own if so
# asked). It insists on rpcbind, so both get a /run that nothing outside sees.
set -eu
if [ "${1:-}" != --inside ]; then exec unshare --mount -- bash "$0" --inside "$@"; fi
shift
port=$1 fsal=$2 folder=$3 tmpfs=${4:-}

# What others have mounted with FUSE would stay in use here after they have unmounted it.
umount --all --lazy --types fuse.bfs || echo "ganesha.sh: FUSE mounts stay in use meanwhile" >&2
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/rpcbind /run/ganesha
[ -z "$tmpfs" ] || mount -t tmpfs tmpfs "$folder"
cat > /run/ganesha/conf << C
NFS_CORE_PARAM {
    Protocols = 3; NFS_Port = $port; MNT_Port = $((port + 1));
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}
NFSv4 { Graceless = true; RecoveryBackend = fs; }
# Without this it forgets what is written to files.
MEM { Inode_Size = 2097152; }
NFS_KRB5 { Active_krb5 = false; }
EXPORT_DEFAULTS {
    Access_Type = RW; Squash = No_Root_Squash; SecType = sys; PrivilegedPort = false; Protocols = 3; Transports = TCP;
}
EXPORT { Export_Id = 1; Path = $folder; Pseudo = /export; FSAL { Name = $fsal; } }
C
rpcbind -f &
# What has ended by itself cannot be killed, and that is no failure of this script: its status is the one it ends with.
trap 'status=$?; set +e; kill $(jobs -p) 2> /dev/null; exit $status' EXIT
trap 'exit 0' TERM INT HUP
until [ -S /run/rpcbind.sock ]; do sleep 0.05; done
ganesha.nfsd -F -f /run/ganesha/conf -L STDOUT -p /run/ganesha/pid &
wait $!
