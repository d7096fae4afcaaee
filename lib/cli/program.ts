// The tree of commands. Each command's module is imported when it is called, and imports the library when it acts: `--version` and `--help` load
// neither. Owns usage errors and their texts.

import { Command, CommanderError, Option } from 'commander'
import { collect } from './options.ts'
import type { GlobalOptions, Session } from './session.ts'

interface CommandModule {
  /** Declare arguments, options, help and action. */
  define(command: Command, session: Session): void
}

interface Leaf {
  readonly summary: string
  readonly aliases?: readonly string[]
  readonly load: () => Promise<CommandModule>
}

interface Group {
  readonly summary: string
  readonly commands: Readonly<Record<string, Leaf>>
}

const groups: Readonly<Record<string, Group>> = {
  image: {
    summary: 'Load, save and manage images',
    commands: {
      load: { summary: 'Load images from an archive: Docker\'s or an OCI layout', load: () => import('./image/load.ts') },
      save: { summary: 'Save images to an archive', load: () => import('./image/save.ts') },
      import: { summary: 'Make an image of a root file system\'s tar', load: () => import('./image/import.ts') },
      ls: { summary: 'List images', aliases: ['list'], load: () => import('./image/ls.ts') },
      inspect: { summary: 'Show all about images, as JSON', load: () => import('./image/inspect.ts') },
      efficiency: { summary: 'Show what images waste and share, and hold them against rules', load: () => import('./image/efficiency.ts') },
      flatten: { summary: 'Write the tree that an image shows as one tar', load: () => import('./image/flatten.ts') },
      squash: { summary: 'Make one layer of several', load: () => import('./image/squash.ts') },
      rebase: { summary: 'Put an image\'s own layers on another base', load: () => import('./image/rebase.ts') },
      history: { summary: 'Show the steps that made an image', load: () => import('./image/history.ts') },
      explore: { summary: 'Write an image as a page to look at', load: () => import('./image/explore.ts') },
      tag: { summary: 'Give an image another name', load: () => import('./image/tag.ts') },
      rm: { summary: 'Remove images', aliases: ['remove'], load: () => import('./image/rm.ts') },
    },
  },
  layer: {
    summary: 'Look into layers',
    commands: {
      ls: { summary: 'List layers', aliases: ['list'], load: () => import('./layer/ls.ts') },
      inspect: { summary: 'Show all about layers, as JSON', load: () => import('./layer/inspect.ts') },
      export: { summary: 'Write a layer\'s tar, bit for bit as it was loaded', load: () => import('./layer/export.ts') },
    },
  },
  container: {
    summary: 'Make and manage containers\' file systems',
    commands: {
      create: { summary: 'Create a container of an image', load: () => import('./container/create.ts') },
      ls: { summary: 'List containers', aliases: ['list', 'ps'], load: () => import('./container/ls.ts') },
      mount: { summary: 'Mount a container\'s root and print its path', load: () => import('./container/mount.ts') },
      umount: { summary: 'Give a mount back', aliases: ['unmount'], load: () => import('./container/umount.ts') },
      mounts: { summary: 'Describe the mounts of a container\'s root, as JSON', load: () => import('./container/mounts.ts') },
      diff: { summary: 'Show what a container changed', load: () => import('./container/diff.ts') },
      commit: { summary: 'Make an image of a container\'s changes', load: () => import('./container/commit.ts') },
      export: { summary: 'Write a container\'s file system as a tar', load: () => import('./container/export.ts') },
      rm: { summary: 'Remove containers', aliases: ['remove'], load: () => import('./container/rm.ts') },
      inspect: { summary: 'Show all about containers, as JSON', load: () => import('./container/inspect.ts') },
      spec: { summary: 'Write an OCI bundle that a runtime such as runc starts', load: () => import('./container/spec.ts') },
    },
  },
  volume: {
    summary: 'Make and manage volumes',
    commands: {
      create: { summary: 'Create a volume', load: () => import('./volume/create.ts') },
      ls: { summary: 'List volumes', aliases: ['list'], load: () => import('./volume/ls.ts') },
      inspect: { summary: 'Show all about volumes, as JSON', load: () => import('./volume/inspect.ts') },
      rm: { summary: 'Remove volumes', aliases: ['remove'], load: () => import('./volume/rm.ts') },
      prune: { summary: 'Remove volumes that nobody uses', load: () => import('./volume/prune.ts') },
      export: { summary: 'Write a volume as a tar', load: () => import('./volume/export.ts') },
      import: { summary: 'Make a volume of a tar', load: () => import('./volume/import.ts') },
      clone: { summary: 'Make a volume as another is now', load: () => import('./volume/clone.ts') },
    },
  },
  serve: {
    summary: 'Offer the store to engines',
    commands: {
      volumes: { summary: 'Serve Docker\'s volume plugin protocol', load: () => import('./serve/volumes.ts') },
      containerd: { summary: 'Serve containerd\'s snapshot service, for a proxy plugin', load: () => import('./serve/containerd.ts') },
    },
  },
  system: {
    summary: 'Look at and move the whole store',
    commands: {
      df: { summary: 'Show disk usage', load: () => import('./system/df.ts') },
      check: { summary: 'Look for damage and for what nobody needs', load: () => import('./system/check.ts') },
      repair: { summary: 'Mend what can be mended, and remove what is nobody\'s', load: () => import('./system/repair.ts') },
      prune: { summary: 'Remove what nobody refers to', load: () => import('./system/prune.ts') },
      migrate: { summary: 'Move everything to another storage driver', load: () => import('./system/migrate.ts') },
    },
  },
}

const diff: Leaf = { summary: 'Compare images, containers, layers, archives or directories', load: () => import('./diff.ts') }
const bench: Leaf = { summary: 'Measure storage drivers on this machine', load: () => import('./bench.ts') }
const info: Leaf = { summary: 'Show the data root, its driver, and why this one', load: () => import('./info.ts') }

/** Parse and run; every failure has been told to the session when it resolves. */
export async function program(session: Session, version: string, args: readonly string[]): Promise<void> {
  let called: Command | undefined
  const root = new Command('layerstack')
    .description('Docker\'s storage on its own: image layers, copy-on-write containers, on Docker\'s own data root.')
    .version(version, '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    // `help image load` is turned into `image load --help`, since commander's own would not load the command's module.
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: () => { /* told by the session, in one line */ } })
    .addHelpText('after', '\nExamples:\n  docker save alpine | layerstack image load\n  layerstack container create --name box alpine\n'
      + '  cd "$(layerstack container mount box)"\n  layerstack container diff box\n\nEach command has its own --help.')
  globalOptions(root, false)
  root.addOption(new Option('--storage-opt <key=value>', 'an option of the driver, e.g. overlay2.size=10G; may be given again').argParser(collect))
  const remember = (command: Command): void => { called = command }
  const add = (parent: Command, name: string, leaf: Leaf): void => {
    const command = parent.command(name).summary(leaf.summary).description(`${leaf.summary}.`)
    if (leaf.aliases !== undefined) command.aliases([...leaf.aliases])
    modules.set(command, leaf)
  }
  const modules = new Map<Command, Leaf>()
  const defineLeaf = async (_: Command, command: Command): Promise<void> => {
    remember(command)
    const leaf = modules.get(command)
    if (leaf === undefined) return
    const { define } = await leaf.load()
    define(command, session)
    globalOptions(command, true)
  }
  root.hook('preSubcommand', defineLeaf)
  add(root, 'info', info)
  add(root, 'bench', bench)
  add(root, 'diff', diff)
  for (const [name, { summary, commands }] of Object.entries(groups)) {
    const group = root.command(name).helpCommand(false).summary(summary).description(`${summary}.`).hook('preSubcommand', defineLeaf)
    for (const [child, leaf] of Object.entries(commands)) add(group, child, leaf)
  }
  // After the command's name the global options are valid too, as in `image ls --json`; there they win.
  root.hook('preAction', (_, action) => session.configure({ ...root.opts<GlobalOptions>(), ...ownGlobals(action) }))

  try {
    await root.parseAsync(helpAsOption(args), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) session.fail(error)
    else if (error.exitCode !== 0) session.failUsage(error.code === 'commander.help' ? undefined : error.message, pathOf(called ?? root))
  }
}

function globalOptions(command: Command, hidden: boolean): void {
  for (const option of [
    new Option('--root <dir>', 'the data root (default: $LAYERSTACK_ROOT, else /var/lib/layerstack for root and $XDG_DATA_HOME/layerstack for others)'),
    new Option('--driver <name>', 'the storage driver (default: what the root holds, else the first that works)'),
    new Option('--config <file>', 'a daemon.json, whose data-root, storage-driver and storage-opts stand in for what is not given'),
    new Option('--durability <how>', 'what is synced to disk: full, metadata or none (default: full)').choices(['full', 'metadata', 'none']),
    new Option('--json', 'print one JSON value and nothing else'),
  ]) {
    // A command's own option of the name goes first, as `volume create --driver`; the global one then stands before the command's name only.
    if (!command.options.some(own => own.long === option.long)) command.addOption(hidden ? option.hideHelp() : option)
  }
}

function ownGlobals(command: Command): GlobalOptions {
  const globals = new Set(command.options.filter(option => option.hidden).map(option => option.attributeName()))
  const { root, driver, config, durability, json } = command.opts<GlobalOptions>()
  return Object.fromEntries(Object.entries({ root, driver, config, durability, json }).filter(([name, value]) => value !== undefined && globals.has(name)))
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`
}

/** `help`, `help image`, `help image load`; and Docker's `--human=false`, since commander's flags take no value. */
function helpAsOption(args: readonly string[]): string[] {
  const plain = args.map(arg => arg === '--human=false' || arg === '-H=false' ? '--no-human' : arg === '--human=true' || arg === '-H=true' ? '--human' : arg)
  return plain[0] === 'help' ? [...plain.slice(1), '--help'] : plain
}
