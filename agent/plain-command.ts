/** What the shell would treat specially outside quotes; a command that has any of it is the shell's. */
const SHELL_SYNTAX = /[$`|;&<>()*?[\]{}~#\\!\p{Cc}]/u
/** What double quotes leave special. */
const QUOTED_SYNTAX = /[$`\\]/

/**
 * The words of a command that means the same without a shell, or undefined. Words are separated by blanks; single and
 * double quotes are taken off as the shell does. Variables, substitutions, pipes, redirections, patterns, comments,
 * escapes and line ends all need the shell.
 */
export function plainWords(command: string): string[] | undefined {
  const words: string[] = []
  for (const match of command.trim().matchAll(/(?:[^ \t"']+|"[^"]*"|'[^']*'|["'])+|[ \t]+/g)) {
    const [word] = match
    if (/^[ \t]/.test(word)) continue
    const plain = plainWord(word)
    if (plain === undefined) return undefined
    words.push(plain)
  }
  return words.length > 0 ? words : undefined
}

function plainWord(word: string): string | undefined {
  let text = ''
  for (const [part] of word.matchAll(/[^"']+|"[^"]*"|'[^']*'|["']/g)) {
    const inner = part.slice(1, -1)
    if (part === '"' || part === "'") return undefined
    if (part.startsWith("'")) text += inner
    else if (part.startsWith('"')) {
      if (QUOTED_SYNTAX.test(inner)) return undefined
      text += inner
    } else if (SHELL_SYNTAX.test(part)) return undefined
    else text += part
  }
  return text.includes('\0') ? undefined : text
}
