//! A connection to a guest's agent, and what it answers.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use super::address::GuestAddress;
use super::connect::ConnectGuest;
use super::error::GuestError;
use super::messages;
use super::method::Method;
use super::stats::GuestStats;
use crate::proto::{self, Message};
use crate::shim::Connection;
use crate::shim::ttrpc::{self, Call, CallError, Client};

/// The longest text of a guest that is kept, in characters: names, versions, messages. Metrics are not cut.
const LONGEST_TEXT: usize = 256;

/// The most addresses, handlers and features that are kept of a list.
const LONGEST_LIST: usize = 64;

/// ttrpc's INVALID_ARGUMENT and PERMISSION_DENIED.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;

/// A connection of our own to a guest's agent, beside its shim's.
///
/// The calls are those of [`Method`]. Each `limit` is sent along as the time after which the agent may give up; put a
/// deadline around the call all the same, because a hung guest does not give up. All texts that come back are a guest's:
/// their length is limited, and they are to be escaped where they are shown.
pub(crate) struct AgentConnection {
    descriptor: Option<RawFd>,
    client: Client<Connection>,
    address: GuestAddress,
}

/// An agent's health (`grpc.Health/Check`). Kata's answers `Serving` or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The agent does not tell.
    Unknown,
    /// The agent takes calls.
    Serving,
    /// The agent answers this call, and takes no others.
    NotServing,
}

/// The versions of an agent (`grpc.Health/Version`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentVersion {
    /// Kata's release.
    pub agent: String,
    /// The agent's interface. It has been `0.0.1` from the start.
    pub api: String,
}

/// What is known about an agent and its guest (`GetGuestDetails`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDetails {
    /// Kata's release, of the agent.
    pub agent_version: String,
    /// Whether the agent is the guest's init.
    pub agent_is_init: bool,
    /// The kinds of devices that it can add to a container, as the agent names them (`blk`, `scsi`).
    pub device_handlers: Vec<String>,
    /// The kinds of storage that it can mount, as the agent names them (`virtio-fs`, `ephemeral`).
    pub storage_handlers: Vec<String>,
    /// What the agent was built with beyond the usual.
    pub extra_features: Vec<String>,
    /// Whether the agent was built with seccomp, so that it can filter a container's system calls.
    pub supports_seccomp: bool,
    /// By how much memory can be added at a time, in bytes. `None`: the guest's kernel has no memory hotplug.
    pub memory_block_bytes: Option<u64>,
    /// Whether added memory has to be announced to the guest's kernel (`/sys/devices/system/memory/probe`).
    pub memory_hotplug_probe: bool,
}

/// A network interface of a guest (`ListInterfaces`). It has no counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInterface {
    /// Its name in the guest, such as `eth0`.
    pub name: String,
    /// Addresses and the lengths of their prefixes. Texts that are not addresses are left out. The family that the
    /// agent sends is not used: it is the wrong one.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The longest packet, in bytes.
    pub mtu: u64,
    /// The hardware address, as text.
    pub hardware_address: String,
}

/// The usage of a volume in a guest (`GetVolumeStats`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// In bytes.
    pub capacity: Option<VolumeUsage>,
    /// In inodes. Filesystems that make them as needed say 0.
    pub inodes: Option<VolumeUsage>,
    /// What is wrong with the volume, if anything.
    pub abnormal: Option<String>,
}

/// How much of a volume is used, in bytes or in inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The size of the volume.
    pub total: u64,
    /// What is used of it.
    pub used: u64,
    /// What is free, including what is reserved for root.
    pub available: u64,
}

impl AgentConnection {
    /// Connects to the agent of a sandbox. Put a deadline around it.
    pub async fn connect(
        connect: &dyn ConnectGuest,
        address: &GuestAddress,
        sandbox: &str,
    ) -> Result<Self, GuestError> {
        let connection = connect.connect(address, sandbox).await?;
        Ok(Self::new(connection, address.clone()))
    }

    /// Speaks over a connection that leads to the agent already.
    pub fn new(connection: Connection, address: GuestAddress) -> Self {
        Self {
            descriptor: connection.descriptor(),
            client: Client::new(connection),
            address,
        }
    }

    /// The descriptor of its socket, where it has one.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }

    /// Asks whether the agent lives. It needs no lock, neither the agent's nor the shim's. Where the answer does not come
    /// in time, or the error is a timeout, do not ask the sandbox's shim for anything that needs the guest.
    pub async fn check(&mut self, limit: Duration) -> Result<Health, GuestError> {
        let reply: messages::HealthCheckResponse = self.call(Method::Check, &[], limit).await?;
        Ok(match reply.status {
            1 => Health::Serving,
            2 => Health::NotServing,
            _ => Health::Unknown,
        })
    }

    /// Asks for the agent's version.
    pub async fn version(&mut self, limit: Duration) -> Result<AgentVersion, GuestError> {
        let reply: messages::VersionCheckResponse = self.call(Method::Version, &[], limit).await?;
        Ok(AgentVersion {
            agent: text(&reply.agent_version),
            api: text(&reply.grpc_version),
        })
    }

    /// Asks for a container's statistics. The sandbox itself is one of its containers.
    ///
    /// Before Kata 4.1.0 the agent holds a lock meanwhile that starting and ending containers need as well.
    pub async fn stats(&mut self, container: &str, limit: Duration) -> Result<Box<GuestStats>, GuestError> {
        let request = self.request(container)?;
        let reply: Result<messages::StatsContainerResponse, _> =
            self.call(Method::StatsContainer, &request, limit).await;
        match reply {
            Ok(reply) => Ok(Box::new(GuestStats::from(reply))),
            Err(GuestError::Rpc {
                address,
                code: INVALID_ARGUMENT,
                ..
            }) => Err(GuestError::NoContainer {
                address,
                id: text(container),
            }),
            Err(error) => Err(error),
        }
    }

    /// Asks for the metrics of the agent and of the guest (`kata_agent_*`, `kata_guest_*`), in Prometheus' text format.
    /// At most 4 MiB; its contents are not checked.
    pub async fn metrics(&mut self, limit: Duration) -> Result<String, GuestError> {
        let reply: messages::Metrics = self.call(Method::GetMetrics, &[], limit).await?;
        Ok(reply.metrics)
    }

    /// Asks for the agent's version and features, and how memory can be added.
    pub async fn details(&mut self, limit: Duration) -> Result<GuestDetails, GuestError> {
        let request = messages::GUEST_DETAILS_REQUEST;
        let reply: messages::GuestDetailsResponse =
            self.call(Method::GetGuestDetails, &request, limit).await?;
        let agent = reply.agent_details.unwrap_or_default();
        Ok(GuestDetails {
            agent_version: text(&agent.version),
            agent_is_init: agent.init_daemon,
            device_handlers: texts(&agent.device_handlers),
            storage_handlers: texts(&agent.storage_handlers),
            extra_features: texts(&agent.extra_features),
            supports_seccomp: agent.supports_seccomp,
            memory_block_bytes: Some(reply.mem_block_size_bytes).filter(|bytes| *bytes != 0),
            memory_hotplug_probe: reply.support_mem_hotplug_probe,
        })
    }

    /// Asks for the guest's network interfaces.
    pub async fn interfaces(&mut self, limit: Duration) -> Result<Vec<GuestInterface>, GuestError> {
        let reply: messages::Interfaces = self.call(Method::ListInterfaces, &[], limit).await?;
        Ok(reply.interfaces.into_iter().map(interface).collect())
    }

    /// Asks for the usage of a volume, by its path in the guest outside of containers.
    pub async fn volume_stats(&mut self, path: &str, limit: Duration) -> Result<VolumeStats, GuestError> {
        let request = self.request(path)?;
        let reply: messages::VolumeStatsResponse = self.call(Method::GetVolumeStats, &request, limit).await?;
        let of_unit = |unit| {
            let usage = reply.usage.iter().find(|usage| usage.unit == unit)?;
            Some(VolumeUsage {
                total: usage.total,
                used: usage.used,
                available: usage.available,
            })
        };
        Ok(VolumeStats {
            capacity: of_unit(1),
            inodes: of_unit(2),
            abnormal: reply
                .volume_condition
                .as_ref()
                .filter(|condition| condition.abnormal)
                .map(|condition| text(&condition.message)),
        })
    }

    /// Every request to a guest is sent here.
    async fn call<M: Message>(
        &mut self,
        method: Method,
        request: &[u8],
        limit: Duration,
    ) -> Result<M, GuestError> {
        let call = Call {
            service: method.service(),
            method: method.name(),
            payload: request,
            timeout: limit,
            limit: method.limit(),
        };
        let reply = self.client.call(call).await;
        let address = || self.address.clone();
        let payload = reply.map_err(|error| match error {
            CallError::Io(source) => GuestError::Io {
                address: address(),
                source,
            },
            CallError::Closed => GuestError::Closed { address: address() },
            CallError::Malformed(reason) => GuestError::Malformed {
                address: address(),
                reason,
            },
            CallError::TooLarge { limit } => GuestError::TooLarge {
                address: address(),
                method,
                limit,
            },
            CallError::Status { code, message } => {
                if code == PERMISSION_DENIED {
                    GuestError::Forbidden {
                        address: address(),
                        method,
                    }
                } else if ttrpc::is_unknown(code, &message, method.service()) {
                    GuestError::Unsupported {
                        address: address(),
                        method,
                    }
                } else {
                    GuestError::Rpc {
                        address: address(),
                        method,
                        code,
                        message: text(&message),
                    }
                }
            }
        })?;
        proto::parse(&payload).map_err(|error| GuestError::Malformed {
            address: address(),
            reason: format!("{method}: {error}"),
        })
    }

    /// The request for a container's statistics or a volume's usage: an id or a path is all that is in it.
    fn request(&self, text: &str) -> Result<Vec<u8>, GuestError> {
        proto::text_message(text).map_err(|error| GuestError::Malformed {
            address: self.address.clone(),
            reason: error.to_string(),
        })
    }
}

fn interface(interface: messages::Interface) -> GuestInterface {
    let addresses = interface.ip_addresses.iter().take(LONGEST_LIST).filter_map(|ip| {
        let address: IpAddr = ip.address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = ip.mask.parse().ok()?;
        (prefix <= longest).then_some((address, prefix))
    });
    GuestInterface {
        name: text(&interface.name),
        addresses: addresses.collect(),
        mtu: interface.mtu,
        hardware_address: text(&interface.hw_addr),
    }
}

fn text(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

fn texts(list: &[String]) -> Vec<String> {
    list.iter().take(LONGEST_LIST).map(|one| text(one)).collect()
}

#[cfg(test)]
mod tests;
