// `layerstack system df`

import type { Command } from 'commander'
import type { DiskUsage, UsageRow } from '../../index.ts'
import type { Session } from '../session.ts'
import { table } from '../table.ts'
import { humanSize, shortId } from '../units.ts'

export function define(command: Command, session: Session): void {
  command
    .option('-v, --verbose', 'a line for each image and container')
    .addHelpText('after', '\nWhat images share is counted once. What lies in no image is told in a row of its own.\n\nExample:\n  layerstack system df -v')
    .action(({ verbose }: { readonly verbose?: boolean }) => session.look(async storage => {
      const usage = await storage.diskUsage()
      if (session.json) await session.printJson(usage)
      else await session.print(verbose === true ? detailed(usage) : summary(usage))
    }))
}

function summary({ rows }: DiskUsage): string {
  return table(['TYPE', 'TOTAL', 'ACTIVE', 'SIZE', 'RECLAIMABLE'], rows.map(row => [row.type, `${row.total}`, `${row.active}`, humanSize(row.sizeBytes), reclaimable(row)]))
}

function reclaimable({ sizeBytes, reclaimableBytes }: UsageRow): string {
  const size = humanSize(reclaimableBytes)
  return sizeBytes > 0 ? `${size} (${Math.floor(reclaimableBytes * 100 / sizeBytes)}%)` : size
}

function detailed({ rows, images, containers }: DiskUsage): string {
  const imageTable = table(['REPOSITORY:TAG', 'IMAGE ID', 'SIZE', 'SHARED SIZE', 'UNIQUE SIZE', 'CONTAINERS'], images.map(image => [
    image.references[0] ?? '<none>', shortId(image.id), humanSize(image.sizeBytes, 3), humanSize(image.sharedBytes), humanSize(image.uniqueBytes), `${image.containers}`,
  ]))
  const containerTable = table(['CONTAINER ID', 'IMAGE', 'SIZE', 'STATUS', 'NAMES'], containers.map(container => [
    shortId(container.id), container.imageId === undefined ? '<none>' : shortId(container.imageId), humanSize(container.sizeBytes), container.mounted ? 'Mounted' : 'Created', container.name,
  ]))
  const others = rows.filter(row => row.type !== 'Images' && row.type !== 'Containers')
  const rest = others.map(row => `\n${row.type} space usage: ${row.total}, ${humanSize(row.sizeBytes)}\n`).join('')
  return `Images space usage:\n\n${imageTable}\nContainers space usage:\n\n${containerTable}${rest}`
}
