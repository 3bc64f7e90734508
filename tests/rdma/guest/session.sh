#!/bin/sh
# The guest's first process on the host's root: makes the RDMA devices, runs the command, leaves its status in the shared folder.
share=/run/guest
busybox=/run/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null >/dev/hvc0 2>&1
$busybox stty raw -echo -F /dev/hvc0

finish() { # status
    echo "$1" >$share/status.new
    mv $share/status.new $share/status
    echo o >/proc/sysrq-trigger
    while :; do $busybox sleep 1; done # the end of this process would be a kernel panic
}

fail() { # why
    echo "guest: $*"
    finish 125
}

device() { # RDMA device, network interface, address
    ip addr add "$3/24" dev "$2" && ip link set "$2" up && rdma link add "$1" type rxe netdev "$2" || fail "no $1 on $2"
    for _ in $($busybox seq 100); do
        case $(cat "/sys/class/infiniband/$1/ports/1/gids/1" 2>/dev/null) in
        *:ffff:*) return ;;
        esac
        $busybox sleep 0.1
    done
    fail "$1 has no IPv4 GID"
}

. $share/settings # role=alone|server|client, shell=yes|no
ulimit -l unlimited
ip link set lo up
modprobe -a rdma_rxe rdma_ucm || fail "no rdma_rxe"
case $role in
alone)
    modprobe veth || fail "no veth"
    # The peers are in one network stack, which must believe that its own addresses come in from outside.
    ip link add v1 mtu 9000 type veth peer name v2 mtu 9000
    for interface in v1 v2 all; do
        echo 1 >/proc/sys/net/ipv4/conf/$interface/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/$interface/rp_filter
    done
    device rxe0 v1 10.20.0.1
    device rxe1 v2 10.20.0.2
    ;;
server | client)
    modprobe virtio_net || fail "no virtio_net"
    for _ in $($busybox seq 100); do
        [ -e /sys/class/net/eth0 ] && break
        $busybox sleep 0.1
    done
    [ $role = server ] && device rxe0 eth0 10.20.0.1
    [ $role = client ] && device rxe0 eth0 10.20.0.2
    ;;
esac

if [ $shell = yes ]; then
    $busybox stty sane -F /dev/hvc0
    setsid -c -w sh $share/command </dev/hvc0
    finish $?
fi

if [ $role = client ]; then
    until [ -e $share/go ]; do $busybox sleep 0.2; done
    : >$share/went
fi
# Through a pipe: what runs here is not at a terminal.
mkfifo /run/output
cat /run/output &
output=$!
setsid sh $share/command >/run/output 2>&1 &
command=$!
if [ $role = server ]; then
    (
        until $busybox grep -q ' 0A ' /proc/net/tcp /proc/net/tcp6 || [ -e $share/ready ]; do $busybox sleep 0.2; done
        : >$share/serving
        until [ -e $share/stop ]; do $busybox sleep 0.2; done
        kill -s TERM -- -$command
        $busybox sleep 10
        kill -s KILL -- -$command
    ) 2>/dev/null &
fi
wait $command
status=$?
(
    $busybox sleep 3 # something that the command left running may hold the pipe
    kill $output
) 2>/dev/null &
wait $output 2>/dev/null
finish $status
