// The compiled bin as its users run it: a process with arguments, pipes, signals and an exit status.

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import type { Context } from '../../fixtures/harness/index.ts'
import { describeFile, writeDockerArchive } from '../../fixtures/image-archive.ts'
import { makeTar } from '../../fixtures/tree.ts'
import type { TarEntrySpec } from '../../fixtures/tree.ts'

const bin = path.join(import.meta.dirname, 'main.js')

interface Result {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
  readonly bytes: Buffer
}

interface RunOptions {
  readonly input?: Buffer | 'closed' | 'open'
  readonly env?: Readonly<Record<string, string>>
  readonly started?: (child: ChildProcess) => void
}

class Cli {
  readonly root: string
  readonly #globals: readonly string[]

  constructor(t: Context, driver: string) {
    this.root = path.join(t.dir, 'root')
    this.#globals = ['--root', this.root, '--driver', driver, '--durability', 'none']
  }

  run(...args: string[]): Promise<Result> {
    return this.with({}, ...args)
  }

  with(options: RunOptions, ...args: string[]): Promise<Result> {
    return execute([...this.#globals, ...args], options)
  }

  /** Stdout of a command that has to succeed in silence. */
  async ok(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(...args)
    assert.is(`${status} ${stderr}`, '0 ', args.join(' '))
    return stdout
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, '--json')) as T
  }

  /** Every path in the root. */
  files(): string[] {
    return fs.readdirSync(this.root, { recursive: true }).map(String).sort()
  }
}

async function execute(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { LAYERSTACK_ROOT: _, DOCKER_DRIVER: __, NO_COLOR: ___, ...env } = process.env
  const child = spawn(process.execPath, [bin, ...args], { env: { ...env, ...options.env }, stdio: 'pipe' })
  const out: Buffer[] = [], err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  child.stdin.on('error', () => { /* it need not read what it is sent */ })
  if (options.input !== 'open') child.stdin.end(options.input === 'closed' ? undefined : options.input)
  options.started?.(child)
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  const bytes = Buffer.concat(out)
  return { status, bytes, stdout: bytes.toString(), stderr: Buffer.concat(err).toString() }
}

const base: readonly TarEntrySpec[] = [
  { type: 'dir', path: 'etc' }, { type: 'file', path: 'etc/hostname', content: 'stone\n' }, { type: 'file', path: 'etc/old', content: 'x'.repeat(2000) },
]
const app: readonly TarEntrySpec[] = [{ type: 'dir', path: 'app' }, { type: 'file', path: 'app/run', content: '#!/bin/sh\n', mode: 0o755 }]

async function image(t: Context, tag: string, layers: readonly (readonly TarEntrySpec[])[] = [base, app], name = 'image.tar'): Promise<{ file: string; imageId: string; diffIds: string[] }> {
  const files = []
  for (const [i, entries] of layers.entries()) {
    const file = path.join(t.dir, `${name}.${i}`)
    fs.writeFileSync(file, makeTar(entries))
    files.push(await describeFile(file))
  }
  const created = '2025-01-01T00:00:00Z'
  const file = path.join(t.dir, name)
  const imageId = await writeDockerArchive(file, {
    tag, layers: files, config: {
      architecture: 'amd64', os: 'linux', created, config: { Cmd: ['/app/run'], Env: ['A=1'], Labels: { maker: 'test' } },
      rootfs: { type: 'layers', diff_ids: files.map(layer => layer.digest) },
      history: files.map((_, i) => ({ created, created_by: i === 0 ? 'ADD base' : `COPY layer ${i}\tand a command that is longer than forty-five` })),
    },
  })
  return { file, imageId, diffIds: files.map(layer => layer.digest) }
}

for (const [driver, skip] of [['vfs', false], ['overlay2', needsRoot]] as const) {
  const test = suite(`cli on ${driver}`)
  const options = { skip, timeoutMs: 120_000 }

  test('images: load, list, history, inspect, tag, save, remove', options, async t => {
    const cli = new Cli(t, driver)
    assert.is(await cli.ok('image', 'ls'), 'REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n')
    const { file, imageId, diffIds } = await image(t, 'demo:1.0')
    const id = imageId.slice(7, 19)
    assert.is(await cli.ok('image', 'load', '-i', file), 'Loaded image: demo:1.0\n')
    assert.match(await cli.ok('image', 'ls'), new RegExp(`^REPOSITORY   TAG       IMAGE ID       CREATED( +)SIZE\ndemo         1\\.0       ${id}   \\d+ (months|years) ago   2\\.02kB\n$`))
    assert.is(await cli.ok('image', 'ls', '-q', '--no-trunc'), `${imageId}\n`)
    assert.match(await cli.ok('image', 'ls', '--digests'), /^REPOSITORY +TAG +DIGEST +IMAGE ID/)
    assert.is(await cli.ok('image', 'ls', '-q', 'other'), '')
    assert.is(await cli.ok('image', 'ls', '-q', '--filter', 'label=maker=test', 'demo'), `${id}\n`)
    const [summary, ...none] = await cli.json<{ Id: string; Size: number; RepoTags: string[] }[]>('image', 'ls')
    assert.equal([summary?.Id, summary?.Size, summary?.RepoTags, none], [imageId, 2016, ['demo:1.0'], []])

    assert.match(await cli.ok('image', 'history', 'demo:1.0'), new RegExp(
      `^IMAGE +CREATED +CREATED BY +SIZE +COMMENT\n${id} +\\d+ \\w+ ago +COPY layer 1 and a command that is longer th… +10B +\n<missing> +\\d+ \\w+ ago +ADD base +2.01kB +\n$`))
    assert.match(await cli.ok('image', 'history', '--human=false', '--no-trunc', 'demo:1.0'), new RegExp(`${imageId} +2025-01-01T00:00:00Z +COPY layer 1 and a command that is longer than forty-five +10 `))
    assert.is((await cli.json<unknown[]>('image', 'history', 'demo:1.0')).length, 2)
    const [inspected] = JSON.parse(await cli.ok('image', 'inspect', 'demo:1.0')) as { Id: string; RootFS: { Layers: string[] }; Config: { Env: string[] } }[]
    assert.equal([inspected?.Id, inspected?.RootFS.Layers, inspected?.Config.Env], [imageId, diffIds, ['A=1']])

    assert.is(await cli.ok('image', 'tag', id, 'other/name:2'), '')
    assert.is(await cli.ok('image', 'load', '-q', '-i', file), 'Loaded image: demo:1.0\n')
    const saved = path.join(t.dir, 'saved.tar')
    assert.is(await cli.ok('image', 'save', '-o', saved, 'demo:1.0', 'other/name:2'), '')
    const piped = await cli.run('image', 'save', 'demo:1.0', 'other/name:2')
    assert.ok(piped.bytes.equals(fs.readFileSync(saved)), 'a file and stdout get different bytes')
    await cli.ok('image', 'save', '--format', 'oci', '-d', path.join(t.dir, 'layout'), 'demo:1.0')
    assert.ok(fs.existsSync(path.join(t.dir, 'layout', 'oci-layout')))

    assert.is(await cli.ok('image', 'rm', 'demo:1.0'), 'Untagged: demo:1.0\n')
    assert.match(await cli.ok('image', 'rm', 'other/name:2'), new RegExp(`^Untagged: other/name:2\nDeleted: ${imageId}\n(Deleted: sha256:[a-f0-9]{64}\n){2}$`))
    assert.is(await cli.ok('image', 'load', '-i', saved), 'Loaded image: demo:1.0\nLoaded image: other/name:2\n')
    assert.equal((await cli.json<object[]>('image', 'rm', 'demo:1.0')), [{ untagged: 'demo:1.0' }])
  })

  test('images through pipes: stdin and stdout, gzip, import', options, async t => {
    const cli = new Cli(t, driver)
    const { file, imageId } = await image(t, 'demo:1.0')
    const tar = fs.readFileSync(file)
    assert.is((await cli.with({ input: tar }, 'image', 'load')).stdout, 'Loaded image: demo:1.0\n')
    const [loaded] = JSON.parse((await cli.with({ input: gzipSync(tar) }, 'image', 'load', '--json')).stdout) as { imageId: string; references: string[]; layers: { fresh: boolean }[] }[]
    assert.equal([loaded?.imageId, loaded?.references, loaded?.layers.map(layer => layer.fresh)], [imageId, ['demo:1.0'], [false, false]])
    const imported = await cli.with({ input: makeTar(base) }, 'image', 'import', '-c', 'ENV B=2', '-m', 'by hand', '-', 'hand:1')
    assert.match(imported.stdout, /^sha256:[a-f0-9]{64}\n$/)
    const [inspected] = JSON.parse(await cli.ok('image', 'inspect', 'hand:1')) as { Comment: string; Config: { Env: string[] } }[]
    assert.equal([inspected?.Comment, inspected?.Config.Env], ['by hand', ['B=2']])
    const other = new Cli({ ...t, dir: path.join(t.dir, 'second') }, driver)
    fs.mkdirSync(path.dirname(other.root))
    const piped = await cli.run('image', 'save', 'demo:1.0')
    assert.is((await other.with({ input: piped.bytes }, 'image', 'load')).stdout, 'Loaded image: demo:1.0\n')
  })

  test('an image without a name, a name that moves', options, async t => {
    const cli = new Cli(t, driver)
    const first = await image(t, 'demo:1.0'), second = await image(t, 'demo:1.0', [base, [{ type: 'file', path: 'b', content: 'b' }]], 'second.tar')
    await cli.ok('image', 'load', '-i', first.file)
    assert.is(await cli.ok('image', 'load', '-i', second.file),
      `The image demo:1.0 already exists, renaming the old one with ID ${first.imageId} to empty string\nLoaded image: demo:1.0\n`)
    assert.is(await cli.ok('image', 'ls', '-q', '--no-trunc', '-f', 'dangling=true'), `${first.imageId}\n`)
    assert.match(await cli.ok('image', 'ls'), /<none> +<none> +[a-f0-9]{12}/)
    const nameless = path.join(t.dir, 'nameless.tar')
    await cli.ok('image', 'save', '-o', nameless, first.imageId)
    assert.is(await cli.ok('image', 'load', '-i', nameless), `Loaded image ID: ${first.imageId}\n`)
  })

  test('layers: list, inspect, export bit for bit', options, async t => {
    const cli = new Cli(t, driver)
    const { file, diffIds } = await image(t, 'demo:1.0')
    await cli.ok('image', 'load', '-i', file)
    const layers = await cli.json<{ chainId: string; diffId: string; sizeBytes: number; parent?: string }[]>('layer', 'ls')
    assert.equal(layers.map(layer => [layer.diffId, layer.sizeBytes]).sort(), [[diffIds[0], 2006], [diffIds[1], 10]].sort())
    assert.match(await cli.ok('layer', 'ls'), /^CHAIN ID +DIFF ID +PARENT +SIZE +CACHE ID\n([a-f0-9]{12} +[a-f0-9]{12} +(<none>|[a-f0-9]{12}) +(10B|2.01kB) +[a-f0-9]{12}\n){2}$/)
    assert.is((await cli.ok('layer', 'ls', '-q')).split('\n').length, 3)
    const top = layers.find(layer => layer.parent !== undefined)
    const [inspected] = JSON.parse(await cli.ok('layer', 'inspect', (top?.chainId ?? '').slice(7, 19))) as { chainId: string; depth: number; graphDriver: { name: string } }[]
    assert.equal([inspected?.chainId, inspected?.depth, inspected?.graphDriver.name], [top?.chainId, 2, driver])
    const exported = await cli.run('layer', 'export', diffIds[1] ?? '')
    assert.is(`sha256:${createHash('sha256').update(exported.bytes).digest('hex')}`, diffIds[1])
    const missing = await cli.run('layer', 'export', 'abc')
    assert.equal([missing.status, missing.stderr], [1, 'layerstack: No such layer: abc\n'])
  })

  test('containers: create, mount, change, diff, commit, export, unmount, remove', options, async t => {
    const cli = new Cli(t, driver)
    const { file, imageId } = await image(t, 'demo:1.0')
    await cli.ok('image', 'load', '-i', file)
    const id = (await cli.ok('container', 'create', '--name', 'box', '-l', 'a=b', 'demo:1.0', 'sh', '-c', 'echo --json')).trim()
    t.defer(() => cli.run('container', 'rm', '-f', 'box'))
    assert.match(await cli.ok('container', 'ls'), new RegExp(
      `^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +NAMES\n${id.slice(0, 12)} +demo:1.0 +"sh -c 'echo --json'" +(Less than a second|\\d+ seconds?) ago +Created +box\n$`))
    assert.is(await cli.ok('container', 'ls', '-q', '--no-trunc'), `${id}\n`)
    const tree = (await cli.ok('container', 'mount', 'box')).trim()
    assert.is(fs.readFileSync(path.join(tree, 'app/run'), 'utf8'), '#!/bin/sh\n')
    fs.writeFileSync(path.join(tree, 'new'), 'new\n')
    fs.writeFileSync(Buffer.concat([Buffer.from(path.join(tree, 'app/')), Buffer.from([0x6e, 0xff])]), 'bytes')
    fs.rmSync(path.join(tree, 'etc/old'))
    const changes = await cli.run('container', 'diff', 'box')
    assert.equal(changes.bytes.toString('latin1').split('\n').sort(), ['', 'A /app/n\xff', 'A /new', 'C /app', 'C /etc', 'D /etc/old'])
    assert.equal((await cli.json<{ kind: string; path: string; pathBase64?: string }[]>('container', 'diff', 'box')).filter(change => change.kind === 'A').sort((a, b) => a.path < b.path ? -1 : 1), [
      { kind: 'A', path: '/app/n\ufffd', pathBase64: Buffer.from('/app/n\xff', 'latin1').toString('base64') }, { kind: 'A', path: '/new' },
    ])
    assert.match(await cli.ok('container', 'ls', '-s'), / Mounted +box +[\d.]+k?B\n$/)
    const [described] = await cli.json<{ type: string; options: string[] }[]>('container', 'mounts', 'box')
    assert.is(described?.type, driver === 'vfs' ? 'bind' : 'overlay')
    const [inspected] = JSON.parse(await cli.ok('container', 'inspect', '-s', 'box')) as { Id: string; Image: string; Config: { Cmd: string[]; Labels: object }; SizeRw: number; Mounted: { Holders: number } }[]
    assert.equal([inspected?.Id, inspected?.Image, inspected?.Config.Cmd, inspected?.Config.Labels, inspected?.Mounted.Holders],
      [id, imageId, ['sh', '-c', 'echo --json'], { a: 'b', maker: 'test' }, 1])
    assert.ok((inspected?.SizeRw ?? 0) > 0)

    const busy = await cli.run('container', 'rm', 'box')
    assert.is(busy.status, 1)
    assert.match(busy.stderr, /^layerstack: .*mounted.*\n {2}unmount it, or remove it with force\n$/)
    const committed = (await cli.ok('container', 'commit', '-a', 'me', '-m', 'msg', '-c', 'ENV B=2', 'box', 'demo:1.1')).trim()
    const [image11] = JSON.parse(await cli.ok('image', 'inspect', 'demo:1.1')) as { Id: string; Author: string; Comment: string; Config: { Env: string[] }; RootFS: { Layers: string[] } }[]
    assert.equal([image11?.Id, image11?.Author, image11?.Comment, [...image11?.Config.Env ?? []].sort(), image11?.RootFS.Layers.length], [committed, 'me', 'msg', ['A=1', 'B=2'], 3])
    const exported = path.join(t.dir, 'export.tar')
    await cli.ok('container', 'export', '-o', exported, 'box')
    assert.ok(fs.readFileSync(exported).includes('app/run'))

    assert.is(await cli.ok('container', 'umount', 'box'), 'box\n')
    const again = await cli.run('container', 'umount', 'box')
    assert.is(again.status, 1)
    assert.match(again.stderr, /^layerstack: .*not mounted\n/)
    const conflict = await cli.run('image', 'rm', 'demo:1.0')
    assert.is(conflict.status, 1)
    assert.match(conflict.stderr, /^layerstack: conflict: unable to remove repository reference "demo:1.0" \(must force\) - container [a-f0-9]{12} is using its referenced image/)
    const taken = await cli.run('container', 'create', '--name', 'box', 'demo:1.0')
    assert.is(taken.status, 1)
    assert.match(taken.stderr, /^layerstack: Conflict\. The container name "\/box" is already in use by container "[a-f0-9]{64}"\n {2}remove or rename/)

    const usage = await cli.json<{ rows: { type: string; total: number; sizeBytes: number }[]; images: object[]; containers: object[] }>('system', 'df')
    assert.equal([usage.rows.map(row => [row.type, row.total]), usage.images.length, usage.containers.length],
      [[['Images', 2], ['Containers', 1], ['Local Volumes', 0], ['Build Cache', 0], ['Container logs', 0], ['Container init layers', 1], ['Tar-split', 3]], 2, 1])
    assert.match(await cli.ok('system', 'df'), /^TYPE +TOTAL +ACTIVE +SIZE +RECLAIMABLE\nImages +2 +1 +2\.025kB +9B \(0%\)\nContainers +1 +0 +[\d.]+k?B +[\d.]+k?B \(100%\)\nLocal Volumes +0 +0 +0B +0B\n/)
    assert.match(await cli.ok('system', 'df', '--quick'), /\nContainers +1 +0 +- +-\n/)
    assert.match(await cli.ok('system', 'df', '-v'), /^Images space usage:\n\nREPOSITORY:TAG +IMAGE ID +CREATED +SIZE +SHARED SIZE +UNIQUE SIZE +CONTAINERS\n/)
    const gone = await cli.run('container', 'rm', 'nope', 'box')
    assert.equal([gone.status, gone.stdout, gone.stderr], [1, 'box\n', 'layerstack: No such container: nope\n'], 'the one that is missing keeps the other from being removed')
    assert.equal(await cli.json('container', 'ls'), [])
    const info = await cli.json<{ driver: string; images: number; containers: number; root: string }>('info')
    assert.equal([info.driver, info.images, info.containers, info.root], [driver, 2, 0, fs.realpathSync(cli.root)])
    assert.match(await cli.ok('info'), new RegExp(`^Containers: 0\nImages: 2\nLayers: 3\nStorage Driver: ${driver}\n`))
  })

  test('Ctrl-C in the middle of a load leaves nothing and exits with 130', options, async t => {
    const cli = new Cli(t, driver)
    const small = await image(t, 'demo:1.0')
    await cli.ok('image', 'load', '-i', small.file)
    const before = cli.files()
    const content = Buffer.alloc(4_000_000, 'layer')
    const many = Array.from({ length: 20 }, (_, i): TarEntrySpec => ({ type: 'file', path: `f${i}`, content }))
    const { file } = await image(t, 'big:1', [base, many], 'big.tar')
    // The layer is being extracted, or all but extracted, once the driver has a folder that was not there.
    const folders = (): number => fs.readdirSync(path.join(cli.root, driver), { recursive: false }).length + (driver === 'vfs' ? fs.readdirSync(path.join(cli.root, 'vfs', 'dir')).length : 0)
    const had = folders()
    const result = await cli.with({
      started: child => void (async () => {
        while (folders() === had && child.exitCode === null) await sleep(2)
        child.kill('SIGINT')
      })(),
    }, 'image', 'load', '-i', file)
    assert.equal([result.status, result.stdout, result.stderr], [130, '', 'layerstack: interrupted\n'])
    assert.equal(cli.files(), before)
    assert.is(await cli.ok('image', 'load', '-i', file), 'Loaded image: big:1\n')
  })

  test('Ctrl-C and SIGTERM while stdin waits', options, async t => {
    const cli = new Cli(t, driver)
    const { file } = await image(t, 'demo:1.0')
    await cli.ok('image', 'ls')
    const before = cli.files()
    const half = fs.readFileSync(file).subarray(0, 4000)
    for (const [signal, status] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
      const result = await cli.with({
        input: 'open',
        started: child => {
          child.stdin?.write(half)
          void (async () => {
            while (child.exitCode === null && !fs.readdirSync(path.join(cli.root, 'layerstack', 'tmp')).some(name => name.startsWith('load-'))) await sleep(5)
            child.kill(signal)
          })()
        },
      }, 'image', 'load')
      assert.equal([result.status, result.stderr], [status, 'layerstack: interrupted\n'])
      assert.equal(cli.files(), before)
    }
  })

  test('a reader of stdout that leaves ends it in silence, with the status of SIGPIPE', options, async t => {
    const cli = new Cli(t, driver)
    const { file } = await image(t, 'demo:1.0', [base, [{ type: 'file', path: 'big', content: Buffer.alloc(2_000_000) }]])
    await cli.ok('image', 'load', '-i', file)
    const before = cli.files()
    for (const args of [['image', 'save', 'demo:1.0'], ['image', 'ls']]) {
      const result = await cli.with({ started: child => child.stdout?.destroy() }, ...args)
      assert.equal([result.status, result.stderr], [141, ''], args.join(' '))
    }
    assert.equal(cli.files(), before)
  })

  test('a save that fails leaves no file, and the old one as it was', options, async t => {
    const cli = new Cli(t, driver)
    const out = path.join(t.dir, 'out')
    fs.mkdirSync(out)
    fs.writeFileSync(path.join(out, 'saved.tar'), 'old')
    const result = await cli.run('image', 'save', '-o', path.join(out, 'saved.tar'), 'nope')
    assert.equal([result.status, result.stderr], [1, 'layerstack: No such image: nope:latest\n'])
    assert.equal(fs.readdirSync(out), ['saved.tar'])
    assert.is(fs.readFileSync(path.join(out, 'saved.tar'), 'utf8'), 'old')
    for (const [to, text] of [[path.join(out, 'no/where.tar'), /invalid output path: directory ".*\/no" does not exist/], [out, /invalid output path: ".*\/out" is a directory/]] as const) {
      const failed = await cli.run('image', 'save', '-o', to, 'nope')
      assert.is(failed.status, 1)
      assert.match(failed.stderr, text)
    }
  })
}

const test = suite('cli: usage and errors')

test('usage errors say what is wrong and where help is, and exit with 2', async t => {
  for (const [args, text] of [
    [['bogus'], 'layerstack: unknown command \'bogus\'\n  see \'layerstack --help\'\n'],
    [['image', 'loda'], 'layerstack: unknown command \'loda\' (Did you mean load?)\n  see \'layerstack image --help\'\n'],
    [['image', 'load', '--bogus'], 'layerstack: unknown option \'--bogus\'\n  see \'layerstack image load --help\'\n'],
    [['image', 'tag', 'a'], 'layerstack: missing required argument \'target\'\n  see \'layerstack image tag --help\'\n'],
    [['image', 'history', 'a', 'b'], /^layerstack: too many arguments for 'history'.*\n {2}see 'layerstack image history --help'\n$/],
    [['--durability', 'some', 'info'], /^layerstack: option '--durability <how>' argument 'some' is invalid.*\n {2}see 'layerstack --help'\n$/],
    [['image', 'save', '--compression', 'lzma', 'x'], /^layerstack: option '--compression <kind>' argument 'lzma' is invalid/],
    [['image', 'save', '-o', 'a', '-d', 'b', 'x'], /^layerstack: option .* cannot be used with option/],
    [['container', 'create', '--storage-opt', 'size', 'x'], /^layerstack: option '--storage-opt <key=value>' argument 'size' is invalid. It is written KEY=VALUE/],
    [['image'], /^Usage: layerstack image /],
    [[], /^Usage: layerstack /],
  ] as const) {
    const result = await execute(args, { env: { LAYERSTACK_ROOT: path.join(t.dir, 'root') } })
    assert.equal([result.status, result.stdout], [2, ''], args.join(' '))
    if (typeof text === 'string') assert.is(result.stderr, text)
    else assert.match(result.stderr, text)
  }
  assert.not.ok(fs.existsSync(path.join(t.dir, 'root')), 'a usage error made a data root')
})

test('help and version go to stdout and exit with 0', async () => {
  for (const [args, text] of [
    [['--version'], /^\d+\.\d+\.\d+\S*\n$/], [['--help'], /Examples:\n/], [['help'], /^Usage: layerstack \[/], [['image', '--help'], /\n {2}load +Load images/], [['help', 'image', 'load'], /--platform/],
    [['container', 'create', '-h'], /^Usage: layerstack container create \[options\] <image> \[command\.\.\.\]/],
  ] as const) {
    const result = await execute(args)
    assert.equal([result.status, result.stderr], [0, ''], args.join(' '))
    assert.match(result.stdout, text)
  }
})

test('failures are one line, a hint at most, and exit with 1', { timeoutMs: 60_000 }, async t => {
  const cli = new Cli(t, 'vfs')
  const file = path.join(t.dir, 'a file')
  fs.writeFileSync(file, 'no tar')
  for (const [args, text, options] of [
    [['image', 'load', '-i', path.join(t.dir, 'nope')], /^layerstack: opening the archive .*ENOENT.*\n$/],
    [['image', 'load', '-i', file], /^layerstack: .+\n( {2}.+\n)?$/],
    [['image', 'load'], /^layerstack: .+\n( {2}.+\n)?$/, { input: 'closed' }],
    [['image', 'inspect', 'nope'], /^layerstack: No such image: nope:latest\n$/],
    [['image', 'ls', '-f', 'nonsense'], /^layerstack: invalid argument for --filter: bad format of filter/],
    [['image', 'rm', 'nope', 'nor:this'], /^layerstack: No such image: nope:latest\nlayerstack: No such image: nor:this\n$/],
    [['image', 'tag', 'nope', 'UPPER'], /^layerstack: .*invalid reference format.*\n/],
    [['container', 'create', 'nope'], /^layerstack: No such image: nope:latest\n$/],
    [['container', 'create', '--name', '-', 'nope'], /^layerstack: Invalid container name \(-\), only /],
    [['container', 'mount', 'nope'], /^layerstack: No such container: nope\n$/],
    [['layer', 'inspect', 'nope'], /^layerstack: No such layer: nope\n$/],
    [['--driver', 'devicemapper', 'info'], /^layerstack: the devicemapper storage-driver is not part of layerstack\n {2}use overlay2/],
    [['--storage-opt', 'vfs.bogus=1', 'info'], /^layerstack: .*vfs\.bogus/],
    [['--root', file, 'info'], /^layerstack: opening .*it is not a directory/],
  ] as readonly (readonly [readonly string[], RegExp, RunOptions?])[]) {
    const result = await cli.with(options ?? {}, ...args)
    assert.is(result.status, 1, `${args.join(' ')}: ${result.stderr}`)
    assert.match(result.stderr, text)
  }
  const json = await cli.run('image', 'inspect', 'nope', '--json')
  assert.is(json.stdout, '[]\n', 'not one JSON value')
})

test('a listing makes a root that is missing, and does not write to one that is there', async t => {
  const cli = new Cli(t, 'vfs')
  assert.is(await cli.ok('image', 'ls', '-q'), '')
  const stat = (): string[] => cli.files().map(name => `${name} ${fs.lstatSync(path.join(cli.root, name)).ctimeMs}`)
  const before = stat()
  for (const args of [['image', 'ls'], ['container', 'ls'], ['layer', 'ls'], ['system', 'df']]) await cli.ok(...args)
  assert.equal(stat(), before)
})

test('what could not be kept is told in one line, with an example', async t => {
  const cli = new Cli(t, 'vfs')
  const { file } = await image(t, 'odd:1', [[{ type: 'dir', path: 'd', xattrs: { 'trusted.overlay.opaque': 'y' } }, { type: 'file', path: 'f', content: 'f', xattrs: { 'trusted.overlay.redirect': '/d' } }]])
  const result = await cli.run('image', 'load', '-i', file)
  assert.equal([result.status, result.stdout], [0, 'Loaded image: odd:1\n'])
  assert.match(result.stderr, /^warning: 2 things of the image could not be kept, e\.g\. d: xattr trusted\.overlay\.opaque \(.+\)\n$/)
})

test('a stream that ends too early leaves nothing', async t => {
  const cli = new Cli(t, 'vfs')
  const { file } = await image(t, 'demo:1.0')
  await cli.ok('image', 'ls')
  const before = cli.files()
  const tar = fs.readFileSync(file)
  for (const input of [tar.subarray(0, 3000), gzipSync(tar).subarray(0, 300)]) {
    const result = await cli.with({ input }, 'image', 'load')
    assert.is(result.status, 1)
    assert.match(result.stderr, /^layerstack: .+\n( {2}.+\n)?$/)
    assert.equal(cli.files(), before)
  }
})
