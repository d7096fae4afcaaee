import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { planSeeds, seedLayer } from './seed.ts'

const test = suite('seeds')

test('into an empty directory, as the applier makes them', { skip: needsRoot }, t => {
  const [lower, plain, applied] = ['lower', 'plain', 'applied'].map(name => { fs.mkdirSync(`${t.dir}/${name}`); return `${t.dir}/${name}` }) as [string, string, string]
  fs.mkdirSync(`${lower}/etc`, 0o755)
  fs.writeFileSync(`${lower}/etc/hosts`, 'of the image')
  fs.utimesSync(`${lower}/etc`, 1e9, 1e9 + 1)
  const plan = planSeeds({ layers: [lower], whiteouts: 'overlay' }, [
    { name: 'dev', type: 'directory', mode: 0o755 }, { name: 'dev/shm', type: 'directory', mode: 0o755 }, { name: 'etc', type: 'directory', mode: 0o755 },
    { name: 'etc/hosts', type: 'file', mode: 0o755 }, { name: 'etc/mtab', type: 'symlink', mode: 0o777, linkname: '/proc/mounts' },
  ])
  const seen = (dir: string): unknown[] => (fs.readdirSync(dir, { recursive: true }) as string[]).sort().map(name => {
    const { mode, uid, gid, size } = fs.lstatSync(`${dir}/${name}`)
    return [name, mode.toString(8), uid, gid, mode >> 12 === 4 ? 0 : size]
  })
  seedLayer(plain, 'overlay', 'trusted.overlay.', plan)
  // A mask that takes something away is the applier's business.
  const mask = process.umask(0o027)
  try {
    seedLayer(applied, 'overlay', 'trusted.overlay.', plan)
  } finally {
    process.umask(mask)
  }
  assert.equal(seen(plain), seen(applied))
  assert.equal(seen(plain).length, 5)
  for (const dir of [plain, applied]) {
    assert.is(fs.statSync(`${dir}/etc`).mtimeMs, (1e9 + 1) * 1000)
    assert.is(fs.readlinkSync(`${dir}/etc/mtab`), '/proc/mounts')
    assert.ok(Date.now() - fs.statSync(`${dir}/dev/shm`).mtimeMs < 3_600_000)
  }
})
