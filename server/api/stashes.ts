import { isObject } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import type { Stash } from '../../store/stashes.js'
import { type Answer, badRequest, created, found, noContent, notFound } from './answer.js'
import { asTexts, listAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { percentDecoded } from './query.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'

export const stashRoutes: readonly Route[] = [
  { paths: ['/stashes'], GET: getStashes, POST: postStash },
  { paths: ['/stashes/:path', '/stash/:path'], GET: getStash, POST: postContent, DELETE: deleteStash },
]

/** Redis counts the end in milliseconds; as many seconds, either way, are more than anybody means. */
const MAXIMUM_EXPIRY_SECONDS = 1e11

/** Whether a value can be the seconds after which something is forgotten. Zero and less: at once. */
export function isExpiry(value: Json): value is number {
  return typeof value === 'number' && Number.isInteger(value) && Math.abs(value) <= MAXIMUM_EXPIRY_SECONDS
}

async function getStashes({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  return listAnswer(query, asTexts(await store.views.stashes.list(query.page), stashText))
}

function stashText({ path, content, expire }: Stash): string {
  return `{"path":${JSON.stringify(path)},"content":${content},"expire":${expire}}`
}

async function postStash({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const { path, content, expire = null } = objectIn(request) ?? {}
  if (typeof path !== 'string' || !isObject(content) || (expire !== null && !isExpiry(expire))) return badRequest
  return put(store, path, content, expire ?? undefined)
}

async function postContent({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const path = pathOf(request)
  const content = objectIn(request)
  return path === undefined || content === undefined ? badRequest : put(store, path, content, undefined)
}

async function put(
  store: ApiParts['store'],
  path: string,
  content: JsonObject,
  expireSeconds: number | undefined,
): Promise<Answer> {
  await store.views.stashes.put(path, content, expireSeconds)
  return created({ path })
}

async function getStash({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const path = pathOf(request)
  return path === undefined ? badRequest : found(await store.views.stashes.content(path))
}

async function deleteStash({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const path = pathOf(request)
  if (path === undefined) return badRequest
  return (await store.views.stashes.remove(path)) ? noContent : notFound
}

/** The only part of a path that is decoded; undefined when it cannot be. */
function pathOf({ parameters }: ApiRequest): string | undefined {
  return percentDecoded(parameters['path'] ?? '')
}
