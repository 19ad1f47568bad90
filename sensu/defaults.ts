/** The version this implementation answers with: that of the Sensu it is compatible with. */
export const sensuVersion = '1.9.0'

/** Default of `sensu.spawn.limit`: commands that run at the same time. */
export const defaultSpawnLimit = 12

/** Seconds between two keepalives; fixed in Sensu 1.9. */
export const keepaliveIntervalSeconds = 20

/** Defaults of `sensu.keepalives.thresholds`, seconds. */
export const defaultKeepaliveThresholds = { warning: 120, critical: 180 } as const

/** Seconds a hook may run when it says nothing; an explicit null means no limit. */
export const defaultHookTimeoutSeconds = 60

/** Defaults of `client.socket`. */
export const defaultSocket = { bind: '127.0.0.1', port: 3030 } as const

/** Defaults of `client.http_socket`. */
export const defaultHttpSocket = { bind: '127.0.0.1', port: 3031 } as const

/** Where configuration is looked for when the command line names nothing, only if it exists. */
export const defaultConfigFile = '/etc/sensu/config.json'
export const defaultConfigDirectory = '/etc/sensu/conf.d'
