#@ type: compute
#@ corunning:
#@   mem1:
#@     trans: mem1
#@     type: rdma
#@ dependents:
#@   - compute2

from disagg import *
import struct


def main(params, action):
    value = 12345

    # The transport to the memory element, by the name that the header gives it.
    trans = action.get_transport('mem1', 'rdma')

    # A registered local buffer: transfers go between it and the memory element.
    trans.reg(64)
    trans.buf[0:4] = struct.pack('@I', value)

    # 4 bytes from offset 0 of the buffer to address 0 of the memory element.
    trans.write(4, addr=0, offset=0)

    print('compute1 wrote', value)
    return {'value': value, 'addr': 0}
