/**
 * Loads a module that is not part of the program. In the executable the build puts the loader's own `import` in the place of this one:
 * code that V8 takes from its cache cannot import.
 */
export function importModule(url: string): Promise<Record<string, unknown>> {
  return import(url)
}
