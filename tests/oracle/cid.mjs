// What another implementation says: the CIDs of files and folders, what is in an archive.
//
//   node cid.mjs add v0|v1|v1-2025 PATH…     prints the CID of each file or folder
//   node cid.mjs read CAR                    prints each file below the archive's root, with the
//                                            SHA-256 of its bytes

import { createHash } from 'node:crypto'
import { createReadStream, readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CarReader } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { recursive } from 'ipfs-unixfs-exporter'
import { importer } from 'ipfs-unixfs-importer'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { sha256 } from 'multiformats/hashes/sha2'

const KIB = 1024
const PROFILES = {
  v0: { cidVersion: 0, rawLeaves: false, chunkSize: 256 * KIB, width: 174 },
  v1: { cidVersion: 1, rawLeaves: true, chunkSize: 256 * KIB, width: 174 },
  'v1-2025': { cidVersion: 1, rawLeaves: true, chunkSize: 1024 * KIB, width: 1024 }
}

function * candidates (root, path) {
  if (statSync(root).isFile()) {
    yield { path, content: createReadStream(root, { highWaterMark: 256 * KIB }) }
    return
  }
  for (const name of readdirSync(root)) {
    yield * candidates(join(root, name), `${path}/${name}`)
  }
}

async function add (profile, ...roots) {
  for (const root of roots) console.log((await cid(profile, root)).toString())
}

async function cid (profile, root) {
  const { cidVersion, rawLeaves, chunkSize, width } = PROFILES[profile]
  const blockstore = new MemoryBlockstore()
  let last
  for await (const entry of importer(candidates(root, 'root'), blockstore, {
    cidVersion,
    rawLeaves,
    reduceSingleLeafToSelf: true,
    chunker: fixedSize({ chunkSize }),
    layout: balanced({ maxChildrenPerNode: width })
  })) {
    last = entry
  }
  return last.cid
}

async function read (path) {
  const car = await CarReader.fromBytes(readFileSync(path))
  const [root] = await car.getRoots()
  const store = {
    async * get (cid) {
      const block = await car.get(cid)
      const { digest } = await sha256.digest(block.bytes)
      if (Buffer.compare(digest, cid.multihash.digest) !== 0) throw new Error(`${cid} is not its bytes`)
      yield block.bytes
    }
  }
  for await (const entry of recursive(root.toString(), store)) {
    if (entry.type === 'directory') continue
    const hash = createHash('sha256')
    for await (const piece of entry.content()) hash.update(piece)
    console.log(`${hash.digest('hex')} ${entry.path.split('/').slice(1).join('/')}`)
  }
}

const [command, ...rest] = process.argv.slice(2)
await { add, read }[command](...rest)
