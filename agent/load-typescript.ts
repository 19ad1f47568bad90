import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { compileFunction } from 'node:vm'
import { transform } from 'sucrase'

interface Module {
  exports: Record<string, unknown>
}

/** By path; what one extension loaded, the next one gets as well. */
const loaded = new Map<string, Module>()

/**
 * Loads a TypeScript module, for Node that does not take types away by itself: as CommonJS, its lines kept, its types not checked. So are TypeScript files
 * that it imports; everything else it imports is Node's affair.
 * @param file absolute path
 * @returns what it exports
 * @throws what the module throws; SyntaxError with file and line when it cannot be compiled
 */
export function loadTypeScript(file: string): Record<string, unknown> {
  const known = loaded.get(file)
  if (known) return known.exports
  const module: Module = { exports: {} }
  // Before it runs: modules may import each other.
  loaded.set(file, module)
  try {
    compile(file).call(module.exports, module.exports, requireFrom(file), module)
  } catch (error) {
    loaded.delete(file)
    throw error
  }
  return module.exports
}

function requireFrom(file: string): (id: string) => unknown {
  const native = createRequire(file)
  const own = (id: string): unknown => {
    const path = native.resolve(id)
    return /\.[mc]?ts$/.test(path) ? loadTypeScript(path) : native(id)
  }
  return Object.assign(own, { resolve: native.resolve })
}

function compile(file: string): ReturnType<typeof compileFunction> {
  const { code } = transform(readFileSync(file, 'utf8'), {
    transforms: ['typescript', 'imports'],
    disableESTransforms: true,
    filePath: file,
  })
  try {
    return compileFunction(code, ['exports', 'require', 'module'], { filename: file })
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    // V8 names the place in the first line of the stack only.
    const [place] = (error.stack ?? file).split('\n')
    throw new SyntaxError(`${place}: ${error.message}`)
  }
}
