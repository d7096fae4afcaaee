// A data root on NFS: this machine's kernel may have no NFS, user-mode-linux has both its client and its server.

import fs from 'node:fs'
import path from 'node:path'
import { assert, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { runInUml, skipWithoutUml } from '../../fixtures/uml.ts'

const test = suite('a data root on NFS')
const skip = process.env['LAYERSTACK_FULL'] ? skipWithoutUml() || (fs.existsSync('/usr/bin/ip') || fs.existsSync('/sbin/ip') ? false : 'needs ip: the Debian package iproute2') : 'left to LAYERSTACK_FULL=1: boots another kernel'

test('overlay2 is refused by name, another driver is chosen, and holds layers', { skip, timeoutMs: 300_000 }, () => {
  const layerstack = `${process.execPath} ${path.join(projectRoot, 'dist/lib/cli/main.js')} --json --root /dev/shm/nfs/root`
  const made = `const { open } = await import('${path.join(projectRoot, 'dist/lib/index.js')}'); const s = await open({ root: '/dev/shm/nfs/root' })
    await s.containers.create({ name: 'box' }); await s.close(); const again = await open({ root: '/dev/shm/nfs/root' }); console.log('@made', again.driver.name, again.containers.list()[0].name)`
  const { output, finished } = runInUml([
    'for m in nfsd nfsv4; do modprobe -d /dev/shm/modules $m; done; ip link set lo up',
    'mkdir -p /dev/shm/export /dev/shm/nfs /dev/shm/recovery; mount -t nfsd nfsd /proc/fs/nfsd; echo /dev/shm/recovery > /proc/fs/nfsd/nfsv4recoverydir',
    // Versions 2 and 3 would look for a port mapper.
    'echo "-2 -3 +4" > /proc/fs/nfsd/versions',
    // What rpc.mountd would answer: who 127.0.0.1 is, what it may mount and how (insecure 2, no_subtree_check 0x400, fsid 0x2000), and what root is called.
    'echo "nfsd 127.0.0.1 2147483647 all" > /proc/net/rpc/auth.unix.ip/channel',
    'echo "all /dev/shm/export 2147483647 $((0x2402)) 65534 65534 0" > /proc/net/rpc/nfsd.export/channel',
    'printf "all 1 \\\\\\\\x00000000 2147483647 /dev/shm/export\\n" > /proc/net/rpc/nfsd.fh/channel',
    'echo 1 > /proc/fs/nfsd/threads; echo Y > /proc/fs/nfsd/v4_end_grace',
    'mount -i -t nfs4 -o vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1 127.0.0.1:/ /dev/shm/nfs; echo "@type $(stat -f -c %T /dev/shm/nfs)"',
    `echo "@info $(${layerstack} info)"`,
    `echo "@refused $(${layerstack} --driver overlay2 info 2>&1)"`,
    `${process.execPath} --input-type=module -e "${made}"`,
  ], { timeoutMs: 240_000 })
  assert.ok(finished, output)
  const said = (what: string): string => new RegExp(`^@${what} (.*)$`, 'm').exec(output)?.[1] ?? ''
  assert.is(said('type'), 'nfs', output)
  const { driver, others } = JSON.parse(said('info')) as { driver: string; others: { name: string; reason: string }[] }
  assert.not.equal(driver, 'overlay2')
  assert.match(others.find(({ name }) => name === 'overlay2')?.reason ?? '', /NFS cannot be an overlay's upper directory/)
  assert.match(said('refused'), /NFS cannot be an overlay's upper directory/)
  assert.is(said('made'), `${driver} box`, output)
})
