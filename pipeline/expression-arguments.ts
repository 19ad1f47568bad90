/** How many arguments methods take at most; those that are not named here take none. */
const mostArguments: ReadonlyMap<string, number> = new Map([
  ...['include?', 'member?', 'key?', 'has_key?', 'cover?', 'eql?', 'equal?', 'casecmp?', 'match', 'match?'].map(one),
  ...['split', 'index', 'join', 'strftime', 'modulo', 'div', 'round', 'first', 'last'].map(one),
  ...['count', 'any?', 'all?', 'none?'].map(one),
  ['between?', 2],
  ['sub', 2],
  ['gsub', 2],
  ['dig', Number.POSITIVE_INFINITY],
  ['start_with?', Number.POSITIVE_INFINITY],
  ['end_with?', Number.POSITIVE_INFINITY],
])
const mayHaveBlock: readonly string[] = ['count', 'any?', 'all?', 'none?']
const needBlock: readonly string[] = ['select', 'reject', 'find', 'map']

function one(name: string): [string, number] {
  return [name, 1]
}

/** Whether a method can be given anything. */
export function takesArguments(name: string): boolean {
  return (mostArguments.get(name) ?? 0) > 0
}

/** What is wrong with a call, in words; what Ruby would heed and the methods here do not is refused, as nobody would notice the difference. */
export function misuseOf(name: string, argumentCount: number, hasBlock: boolean): string | undefined {
  if (argumentCount > (mostArguments.get(name) ?? 0))
    return `${name} with ${argumentCount === 1 ? 'an argument' : `${argumentCount} arguments`} is not supported`
  if (hasBlock && !mayHaveBlock.includes(name) && !needBlock.includes(name))
    return `${name} with a block is not supported`
  return !hasBlock && needBlock.includes(name) ? `${name} needs a block` : undefined
}
