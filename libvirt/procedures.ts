/** Program numbers of libvirt's RPC protocol. */
export const Program = { remote: 0x20008086, qemu: 0x20008087, keepalive: 0x6b656570 } as const

/**
 * What a connection is for. A call that may hang on one guest's QEMU or on a dead storage server must not share a
 * connection with cheap ones: the daemon reads at most 5 unanswered calls per client.
 */
export type Purpose =
  /** Answered from libvirt's memory. */
  | 'state'
  /** Carries the events and nothing else. */
  | 'events'
  /** Bulk statistics. */
  | 'bulk'
  /** Asks QEMU or the guest agent, directly or under the guest's job lock. */
  | 'monitor'
  /** Storage pools and volumes. */
  | 'storage'
  /** Changes something and may take minutes. */
  | 'change'

export interface Procedure {
  /** libvirt's own name, for messages. */
  name: string
  program: number
  number: number
  purpose: Purpose
  /** `write` when a read-only connection is refused (error 29). */
  access: 'read' | 'write'
  /** Deadline when the caller names none. */
  timeoutMs: number
}

const timeoutMs: Record<Purpose, number> = {
  state: 5000,
  events: 5000,
  bulk: 10_000,
  monitor: 5000,
  storage: 10_000,
  change: 120_000,
}

function remote(number: number, name: string, purpose: Purpose, access: Procedure['access'] = 'read'): Procedure {
  return { name, program: Program.remote, number, purpose, access, timeoutMs: timeoutMs[purpose] }
}

function qemu(number: number, name: string): Procedure {
  return { name, program: Program.qemu, number, purpose: 'monitor', access: 'write', timeoutMs: timeoutMs.monitor }
}

/** Every procedure this client calls. Numbers are libvirt's ABI (checked against libvirt 9.0). */
export const procedures = {
  authList: remote(66, 'AUTH_LIST', 'state'),
  authPolkit: remote(70, 'AUTH_POLKIT', 'state'),
  connectOpen: remote(1, 'CONNECT_OPEN', 'state'),
  connectClose: remote(2, 'CONNECT_CLOSE', 'state'),
  supportsFeature: remote(60, 'CONNECT_SUPPORTS_FEATURE', 'state'),

  getType: remote(3, 'CONNECT_GET_TYPE', 'state'),
  getVersion: remote(4, 'CONNECT_GET_VERSION', 'state'),
  getLibVersion: remote(157, 'CONNECT_GET_LIB_VERSION', 'state'),
  getHostname: remote(59, 'CONNECT_GET_HOSTNAME', 'state'),
  getUri: remote(110, 'CONNECT_GET_URI', 'state'),
  getCapabilities: remote(7, 'CONNECT_GET_CAPABILITIES', 'state'),

  nodeGetInfo: remote(6, 'NODE_GET_INFO', 'state'),
  nodeGetCpuStats: remote(227, 'NODE_GET_CPU_STATS', 'state'),
  nodeGetMemoryStats: remote(228, 'NODE_GET_MEMORY_STATS', 'state'),
  nodeGetFreeMemory: remote(102, 'NODE_GET_FREE_MEMORY', 'state'),
  nodeGetCellsFreeMemory: remote(101, 'NODE_GET_CELLS_FREE_MEMORY', 'state'),
  nodeGetFreePages: remote(340, 'NODE_GET_FREE_PAGES', 'state'),

  listAllDomains: remote(273, 'CONNECT_LIST_ALL_DOMAINS', 'state'),
  domainLookupByName: remote(23, 'DOMAIN_LOOKUP_BY_NAME', 'state'),
  domainLookupByUuid: remote(24, 'DOMAIN_LOOKUP_BY_UUID', 'state'),
  domainGetState: remote(212, 'DOMAIN_GET_STATE', 'state'),
  domainGetInfo: remote(16, 'DOMAIN_GET_INFO', 'state'),
  domainGetVcpus: remote(20, 'DOMAIN_GET_VCPUS', 'state'),
  domainGetVcpusFlags: remote(200, 'DOMAIN_GET_VCPUS_FLAGS', 'state'),
  domainGetCpuStats: remote(262, 'DOMAIN_GET_CPU_STATS', 'state'),
  domainGetXml: remote(14, 'DOMAIN_GET_XML_DESC', 'state'),
  domainGetAutostart: remote(15, 'DOMAIN_GET_AUTOSTART', 'state'),
  domainIsPersistent: remote(151, 'DOMAIN_IS_PERSISTENT', 'state'),
  domainIsActive: remote(150, 'DOMAIN_IS_ACTIVE', 'state'),
  domainHasManagedSave: remote(183, 'DOMAIN_HAS_MANAGED_SAVE_IMAGE', 'state'),
  domainGetMetadata: remote(265, 'DOMAIN_GET_METADATA', 'state'),
  domainGetControlInfo: remote(229, 'DOMAIN_GET_CONTROL_INFO', 'state'),
  domainGetMessages: remote(426, 'DOMAIN_GET_MESSAGES', 'state'),

  getAllDomainStats: remote(344, 'CONNECT_GET_ALL_DOMAIN_STATS', 'bulk'),

  domainMemoryStats: remote(159, 'DOMAIN_MEMORY_STATS', 'monitor'),
  domainBlockStats: remote(64, 'DOMAIN_BLOCK_STATS', 'monitor'),
  domainBlockStatsFlags: remote(243, 'DOMAIN_BLOCK_STATS_FLAGS', 'monitor'),
  domainGetBlockInfo: remote(194, 'DOMAIN_GET_BLOCK_INFO', 'monitor'),
  domainGetBlockJobInfo: remote(238, 'DOMAIN_GET_BLOCK_JOB_INFO', 'monitor'),
  domainGetBlockIoTune: remote(253, 'DOMAIN_GET_BLOCK_IO_TUNE', 'monitor'),
  domainGetDiskErrors: remote(263, 'DOMAIN_GET_DISK_ERRORS', 'monitor'),
  domainInterfaceStats: remote(65, 'DOMAIN_INTERFACE_STATS', 'monitor'),
  domainGetJobInfo: remote(163, 'DOMAIN_GET_JOB_INFO', 'monitor'),
  domainGetJobStats: remote(298, 'DOMAIN_GET_JOB_STATS', 'monitor'),
  domainGetGuestInfo: remote(418, 'DOMAIN_GET_GUEST_INFO', 'monitor', 'write'),
  domainGetFsInfo: remote(349, 'DOMAIN_GET_FSINFO', 'monitor', 'write'),
  domainGetTime: remote(337, 'DOMAIN_GET_TIME', 'monitor', 'write'),
  domainInterfaceAddresses: remote(353, 'DOMAIN_INTERFACE_ADDRESSES', 'monitor', 'write'),
  domainGetGuestVcpus: remote(371, 'DOMAIN_GET_GUEST_VCPUS', 'monitor', 'write'),
  qemuMonitorCommand: qemu(1, 'QEMU_MONITOR_COMMAND'),
  qemuAgentCommand: qemu(3, 'QEMU_AGENT_COMMAND'),

  listAllSnapshots: remote(274, 'DOMAIN_LIST_ALL_SNAPSHOTS', 'state'),
  snapshotGetXml: remote(186, 'DOMAIN_SNAPSHOT_GET_XML_DESC', 'state'),
  snapshotLookup: remote(189, 'DOMAIN_SNAPSHOT_LOOKUP_BY_NAME', 'state'),
  snapshotHasCurrent: remote(190, 'DOMAIN_HAS_CURRENT_SNAPSHOT', 'state'),
  snapshotCurrent: remote(191, 'DOMAIN_SNAPSHOT_CURRENT', 'state'),
  snapshotGetParent: remote(244, 'DOMAIN_SNAPSHOT_GET_PARENT', 'state'),
  snapshotCreate: remote(185, 'DOMAIN_SNAPSHOT_CREATE_XML', 'change', 'write'),
  snapshotRevert: remote(192, 'DOMAIN_REVERT_TO_SNAPSHOT', 'change', 'write'),
  snapshotDelete: remote(193, 'DOMAIN_SNAPSHOT_DELETE', 'change', 'write'),
  domainCreate: remote(9, 'DOMAIN_CREATE', 'change', 'write'),
  domainSuspend: remote(34, 'DOMAIN_SUSPEND', 'change', 'write'),
  domainResume: remote(28, 'DOMAIN_RESUME', 'change', 'write'),

  listAllStoragePools: remote(281, 'CONNECT_LIST_ALL_STORAGE_POOLS', 'storage'),
  storagePoolLookupByName: remote(84, 'STORAGE_POOL_LOOKUP_BY_NAME', 'storage'),
  storagePoolGetInfo: remote(87, 'STORAGE_POOL_GET_INFO', 'storage'),
  storagePoolGetXml: remote(88, 'STORAGE_POOL_GET_XML_DESC', 'storage'),
  storagePoolGetAutostart: remote(89, 'STORAGE_POOL_GET_AUTOSTART', 'storage'),
  storagePoolIsActive: remote(154, 'STORAGE_POOL_IS_ACTIVE', 'storage'),
  storagePoolIsPersistent: remote(155, 'STORAGE_POOL_IS_PERSISTENT', 'storage'),
  storagePoolRefresh: remote(83, 'STORAGE_POOL_REFRESH', 'storage', 'write'),
  listAllVolumes: remote(282, 'STORAGE_POOL_LIST_ALL_VOLUMES', 'storage'),
  volumeLookupByName: remote(95, 'STORAGE_VOL_LOOKUP_BY_NAME', 'storage'),
  volumeLookupByPath: remote(97, 'STORAGE_VOL_LOOKUP_BY_PATH', 'storage'),
  volumeGetInfo: remote(98, 'STORAGE_VOL_GET_INFO', 'storage'),
  volumeGetXml: remote(99, 'STORAGE_VOL_GET_XML_DESC', 'storage'),
  volumeGetPath: remote(100, 'STORAGE_VOL_GET_PATH', 'storage'),

  listAllNetworks: remote(283, 'CONNECT_LIST_ALL_NETWORKS', 'state'),
  networkLookupByName: remote(46, 'NETWORK_LOOKUP_BY_NAME', 'state'),
  networkIsActive: remote(152, 'NETWORK_IS_ACTIVE', 'state'),
  networkIsPersistent: remote(153, 'NETWORK_IS_PERSISTENT', 'state'),
  networkGetAutostart: remote(44, 'NETWORK_GET_AUTOSTART', 'state'),
  networkGetBridge: remote(45, 'NETWORK_GET_BRIDGE_NAME', 'state'),
  networkGetXml: remote(43, 'NETWORK_GET_XML_DESC', 'state'),
  networkGetDhcpLeases: remote(341, 'NETWORK_GET_DHCP_LEASES', 'state'),

  eventRegister: remote(316, 'CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY', 'events'),
  eventDeregister: remote(317, 'CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY', 'events'),
} as const satisfies Record<string, Procedure>
