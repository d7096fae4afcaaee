// `layerstack system df`

import type { Command } from 'commander'
import type { ContainerUsage, DiskUsage, UsageRow } from '../../index.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { ago, humanSize, shortId } from '../units.ts'

interface Options {
  readonly verbose?: boolean
  readonly quick?: boolean
}

export function define(command: Command, session: Session): void {
  command
    .option('-v, --verbose', 'a line for each image, container, volume, record of the build cache and orphan')
    .option('--quick', 'only sizes that are on record: no files of containers, volumes and orphans are counted, their sizes show as -')
    .addHelpText('after', '\nWhat images share is counted once, and reclaimable is what no container stands on. What Docker does not tell has rows of its own: logs, tar-split\n'
      + '(what layers\' archives are rebuilt with), layers that lie in no image, orphans (directories of the driver that nobody knows), temporary files.\n'
      + 'Images are as big as their files; containers, volumes and the rest as big as their blocks.\n\nExample:\n  layerstack system df -v')
    .action(({ verbose, quick }: Options) => session.look(async storage => {
      const usage = await storage.diskUsage({ signal: session.signal, storedOnly: quick === true })
      if (session.json) await session.printJson(usage)
      else await session.print(verbose === true ? detailed(usage) : summary(usage.rows))
    }))
}

function size(bytes: number | undefined, digits?: number): string {
  return bytes === undefined ? '-' : humanSize(bytes, digits)
}

function summary(rows: readonly UsageRow[]): string {
  return table(['TYPE', 'TOTAL', 'ACTIVE', 'SIZE', 'RECLAIMABLE'], rows.map(row => [row.type, `${row.total}`, `${row.active}`, size(row.sizeBytes), reclaimable(row)]))
}

function reclaimable({ sizeBytes = 0, reclaimableBytes }: UsageRow): string {
  if (reclaimableBytes === undefined || sizeBytes === 0) return size(reclaimableBytes)
  return `${size(reclaimableBytes)} (${Math.floor(reclaimableBytes * 100 / sizeBytes)}%)`
}

function detailed({ rows, images, containers, volumes, buildCache, orphans }: DiskUsage): string {
  const shown = new Set(['Images', 'Containers', 'Local Volumes'])
  const parts = [
    ['Images space usage:', table(['REPOSITORY:TAG', 'IMAGE ID', 'CREATED', 'SIZE', 'SHARED SIZE', 'UNIQUE SIZE', 'CONTAINERS'], images.map(image => [
      image.references[0] ?? '<none>', shortId(image.id), ago(image.created === undefined ? undefined : Date.parse(image.created)), size(image.sizeBytes, 3), size(image.sharedBytes),
      size(image.uniqueBytes), `${image.containers}`,
    ]))],
    ['Containers space usage:', table(['CONTAINER ID', 'IMAGE', 'LOCAL VOLUMES', 'SIZE', 'LOGS', 'STATUS', 'NAMES'], containers.map(container => [
      shortId(container.id), container.imageId === undefined ? '<none>' : shortId(container.imageId), `${container.volumes}`, size(container.sizeBytes), size(container.logBytes),
      statusOf(container), container.name,
    ]))],
    ['Local Volumes space usage:', table(['VOLUME NAME', 'LINKS', 'SIZE'], volumes.map(({ name, links, sizeBytes }) => [name, `${links}`, size(sizeBytes)]))],
    ...[['Build cache', buildCache] as const, ['Orphans', orphans] as const].flatMap(([title, items]) => items.length === 0 ? [] : [
      [`${title}:`, table(['DRIVER LAYER', 'SIZE'], items.map(({ id, sizeBytes }) => [id, size(sizeBytes)]))],
    ]),
    ['Beside these:', summary(rows.filter(({ type }) => !shown.has(type)))],
  ]
  return parts.map(([title = '', text = '']) => `${title}\n\n${text}`).join('\n')
}

function statusOf({ mounted, active }: ContainerUsage): string {
  return mounted ? 'Mounted' : active ? 'Running' : 'Stopped'
}
