#@ type: compute
#@ corunning:
#@   mem1:
#@     trans: mem1
#@     type: rdma
#@ parents:
#@   - compute1

from disagg import *
import struct


def main(params, action):
    # One result per parallel copy of each parent.
    told = params['compute1'][0]

    trans = action.get_transport('mem1', 'rdma')
    trans.reg(64)
    trans.read(4, addr=told['addr'], offset=0)
    fetched = struct.unpack_from('@I', trans.buf, 0)[0]

    print('compute2 fetched', fetched, fetched == told['value'])
    return {'fetched': fetched, 'same': fetched == told['value']}
