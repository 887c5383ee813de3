import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { DurableFS, type EngineModule, type Stream } from '../../src/db/embedded/durable-fs.ts'

const pageBytes = 4096

/** A file: what has reached the disk, what the programs see, and the pages in which the two may differ. */
class RecordedFile {
  #disk: Buffer
  #seen: Buffer
  readonly #dirty = new Set<number>()

  constructor(content: Buffer) {
    this.#disk = content
    this.#seen = Buffer.from(content)
  }

  write(data: Uint8Array, position: number): void {
    const end = position + data.length
    if (end > this.#seen.length) this.#seen = resized(this.#seen, end)
    this.#seen.set(data, position)
    for (let page = Math.floor(position / pageBytes); page * pageBytes < end; page++) this.#dirty.add(page)
  }

  /** A cut-off end is gone at once; a new length reaches the disk with the next sync. */
  resize(size: number): void {
    this.#seen = resized(this.#seen, size)
    if (size < this.#disk.length) this.#disk = resized(this.#disk, size)
  }

  sync(): void {
    if (this.#disk.length !== this.#seen.length) this.#disk = resized(this.#disk, this.#seen.length)
    for (const page of this.#dirty) this.#disk.set(this.#page(page), page * pageBytes)
    this.#dirty.clear()
  }

  /** What is left after a power cut: what was synced, and of the rest the pages that happened to be written. */
  wreck(survives: () => boolean): Buffer {
    const surviving = [...this.#dirty].filter(number => this.#page(number).length > 0 && survives())
    const ends = surviving.map(number => number * pageBytes + this.#page(number).length)
    // Grown once: page by page, a new file of 16 MB would be copied four thousand times.
    const left = resized(this.#disk, Math.max(this.#disk.length, ...ends))
    for (const number of surviving) left.set(this.#page(number), number * pageBytes)
    return left
  }

  equals(content: Buffer): boolean {
    return this.#seen.equals(content)
  }

  #page(number: number): Buffer {
    return this.#seen.subarray(number * pageBytes, (number + 1) * pageBytes)
  }
}

interface Node {
  name: string
}

interface Change {
  size?: number
}

/** The functions of Emscripten's NODEFS that change something. */
interface NodeFunctions {
  realPath(node: Node): string
  node_ops: {
    mknod(parent: Node, name: string, mode: number, device: number): Node
    rename(node: Node, folder: Node, name: string): void
    unlink(parent: Node, name: string): void
    rmdir(parent: Node, name: string): void
    setattr(node: Node, change: Change): void
  }
  stream_ops: {
    fsync?: (stream: OpenFile) => number
    write(stream: OpenFile, heap: Int8Array, offset: number, length: number, position: number): number
    setattr(stream: OpenFile, change: Change): void
  }
}

interface OpenFile extends Stream {
  node: Node
}

interface Recording {
  /** Called after each change to the disk and each sync; the place to cut the power. */
  onStep: (disk: PowerCutFS) => void
  /** False makes it the stock file system: what is written reaches the disk some day. */
  syncs?: boolean
}

/**
 * The product's file system with a record of what would be on the disk if the power failed now.
 *
 * Contents that were not synced are lost, or survive page by page at random. Names are harder than on a real disk in
 * one way and kinder in another: they change in order, at once. A drive that lies about its cache is not modelled.
 */
export class PowerCutFS extends DurableFS {
  readonly #files = new Map<string, RecordedFile>()
  readonly #folders = new Set<string>()

  constructor(
    private readonly folder: string,
    private readonly recording: Recording,
  ) {
    super(folder)
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name)
      if (entry.isDirectory()) this.#folders.add(path)
      else this.#files.set(path, new RecordedFile(readFileSync(path)))
    }
  }

  /** Writes what a power cut leaves to a data folder on which a program can be started. */
  wreck(dataDir: string, survives: () => boolean): void {
    const cluster = join(dataDir, 'cluster')
    const place = (path: string) => join(cluster, relative(this.folder, path))
    mkdirSync(cluster, { recursive: true, mode: 0o700 })
    for (const path of this.#folders) mkdirSync(place(path), { recursive: true })
    for (const [path, file] of this.#files) writeFileSync(place(path), file.wreck(survives))
  }

  /** Files whose content on the real disk is not what was recorded: none, or the recorder misses something. */
  unrecorded(): string[] {
    const now = readdirSync(this.folder, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
    const gone = [...this.#files.keys()].filter(path => !now.includes(path))
    return [...gone, ...now.filter(path => !this.#files.get(path)?.equals(readFileSync(path)))]
  }

  protected override patch(module: EngineModule): void {
    super.patch(module)
    const { realPath, node_ops, stream_ops } = module.NODEFS as unknown as NodeFunctions
    const { onStep, syncs = true } = this.recording
    const files = this.#files
    const step = () => onStep(this)
    const fsync = stream_ops.fsync!

    stream_ops.fsync = stream => {
      if (!syncs) return 0
      fsync(stream)
      files.get(realPath(stream.node))?.sync()
      step()
      return 0
    }
    after(stream_ops, 'write', (written, stream, heap, offset, _length, position) => {
      const data = new Uint8Array(heap.buffer, heap.byteOffset + offset, written)
      files.get(realPath(stream.node))?.write(data, position)
      step()
    })
    after(stream_ops, 'setattr', (_, stream, { size }) => {
      if (size !== undefined) files.get(realPath(stream.node))?.resize(size)
    })
    after(node_ops, 'setattr', (_, node, { size }) => {
      if (size !== undefined) files.get(realPath(node))?.resize(size)
    })
    after(node_ops, 'mknod', (node, _parent, _name, mode) => {
      const isFolder = (mode & 0o170000) === 0o040000
      if (isFolder) this.#folders.add(realPath(node))
      else files.set(realPath(node), new RecordedFile(Buffer.alloc(0)))
      step()
    })
    after(node_ops, 'unlink', (_, parent, name) => {
      files.delete(join(realPath(parent), name))
      step()
    })
    after(node_ops, 'rmdir', (_, parent, name) => {
      this.#folders.delete(join(realPath(parent), name))
    })

    const rename = node_ops.rename
    node_ops.rename = (node, folder, name) => {
      const from = realPath(node)
      rename(node, folder, name)
      this.#move(from, join(realPath(folder), name))
      step()
    }
  }

  #move(from: string, to: string): void {
    for (const [path, file] of [...this.#files]) {
      if (path !== from && !path.startsWith(`${from}/`)) continue
      this.#files.delete(path)
      this.#files.set(to + path.slice(from.length), file)
    }
  }
}

type AnyFunction = (...args: unknown[]) => unknown
type Then<F> = F extends (...args: infer Args) => infer Result
  ? (result: Result, ...args: Args) => void
  : never

/** Adds something to do after a function of an object, with its result and its arguments. */
function after<Functions, Key extends keyof Functions>(
  functions: Functions,
  key: Key,
  then: Then<Functions[Key]>,
): void {
  const original = functions[key] as AnyFunction
  const both: AnyFunction = (...args) => {
    const result = original(...args)
    ;(then as AnyFunction)(result, ...args)
    return result
  }
  functions[key] = both as Functions[Key]
}

function resized(content: Buffer, size: number): Buffer {
  const grown = Buffer.alloc(size)
  content.copy(grown)
  return grown
}
