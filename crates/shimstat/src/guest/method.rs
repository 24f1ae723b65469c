//! The calls that are made to a guest's agent. No other call is ever made: these only read.

use std::fmt;

use crate::shim::ttrpc::LONGEST;

/// A call to a guest's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Whether the agent lives.
    Check,
    /// The agent's version.
    Version,
    /// A container's statistics.
    StatsContainer,
    /// The agent's and the guest's metrics, as Prometheus text.
    GetMetrics,
    /// The agent's features, and how memory can be added to the guest.
    GetGuestDetails,
    /// The guest's network interfaces.
    ListInterfaces,
    /// The usage of a volume.
    GetVolumeStats,
}

impl Method {
    /// All calls.
    pub const ALL: [Self; 7] = [
        Self::Check,
        Self::Version,
        Self::StatsContainer,
        Self::GetMetrics,
        Self::GetGuestDetails,
        Self::ListInterfaces,
        Self::GetVolumeStats,
    ];

    /// The ttrpc service (Kata 4.1.0, `src/libs/protocols/protos/{agent,health}.proto`: package `grpc`).
    pub fn service(self) -> &'static str {
        match self {
            Self::Check | Self::Version => "grpc.Health",
            Self::StatsContainer
            | Self::GetMetrics
            | Self::GetGuestDetails
            | Self::ListInterfaces
            | Self::GetVolumeStats => "grpc.AgentService",
        }
    }

    /// The name within the service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "Check",
            Self::Version => "Version",
            Self::StatsContainer => "StatsContainer",
            Self::GetMetrics => "GetMetrics",
            Self::GetGuestDetails => "GetGuestDetails",
            Self::ListInterfaces => "ListInterfaces",
            Self::GetVolumeStats => "GetVolumeStats",
        }
    }

    /// The most bytes that an answer may have. Seen: 2, 14, 1.3 K, 17 K, 133, 141.
    pub(super) fn limit(self) -> usize {
        match self {
            Self::Check | Self::Version => 4 << 10,
            // A device has six entries of some 20 bytes.
            Self::StatsContainer => 256 << 10,
            Self::GetMetrics => LONGEST,
            Self::GetGuestDetails | Self::GetVolumeStats => 64 << 10,
            Self::ListInterfaces => 256 << 10,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service(), self.name())
    }
}
