import type { Answer } from './answer.js'
import type { ApiParts } from './parts.js'
import type { ApiRequest } from './request.js'

/** Answers one request. What it throws is answered by 500. */
export type Handler = (parts: ApiParts, request: ApiRequest) => Answer | Promise<Answer>

/** What is at some paths. HEAD is answered wherever GET is. */
export interface Route {
  /** `:name` stands for a part of the path, made of the characters that are allowed to it below. */
  paths: readonly string[]
  GET?: Handler
  POST?: Handler
  DELETE?: Handler
  /** Answered also while Redis or the transport is away. */
  offline?: true
  /** Only there for requests that accept this content type. */
  accepts?: string
}

/** Characters of the parts that routes name; nothing is percent-decoded before (Sensu 1.9). */
const characters: Readonly<Record<string, string>> = {
  name: '[\\w.-]+',
  client: '[\\w.-]+',
  check: '[\\w.-]+',
  severity: '[\\w.-]+',
  id: '[\\w.\\-*:]+',
  subscription: '[\\w.\\-:]+',
  path: '.*',
}

/** What was found at a path. */
export interface Match {
  route: Route
  parameters: Record<string, string>
}

/** Finds routes by path. */
export class Router {
  readonly #patterns: { pattern: RegExp; route: Route }[]

  constructor(routes: readonly Route[]) {
    this.#patterns = routes.flatMap(route => route.paths.map(path => ({ pattern: patternOf(path), route })))
  }

  /** `accept`: the content types that the request accepts, as it says. */
  find(path: string, accept = ''): Match | undefined {
    for (const { pattern, route } of this.#patterns) {
      const match = pattern.exec(path)
      if (match && accept.includes(route.accepts ?? '')) return { route, parameters: { ...match.groups } }
    }
    return undefined
  }
}

/** The handler of a method; undefined when the route has none. */
export function handlerOf(route: Route, method: string): Handler | undefined {
  switch (method) {
    case 'GET':
    case 'HEAD':
      return route.GET
    case 'POST':
      return route.POST
    case 'DELETE':
      return route.DELETE
    default:
      return undefined
  }
}

/** 405 with what would be allowed, in Sensu's order. */
export function methodNotAllowed({ GET, POST, DELETE }: Route): Answer {
  const methods = [...(GET ? ['GET', 'HEAD'] : []), ...(POST ? ['POST'] : []), ...(DELETE ? ['DELETE'] : [])]
  return { status: 405, headers: { Allow: methods.join(', ') } }
}

function patternOf(path: string): RegExp {
  return new RegExp(`^${path.replace(/:(\w+)/g, (_, name: string) => `(?<${name}>${characters[name] ?? '[^/]+'})`)}$`)
}
