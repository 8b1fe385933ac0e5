//! What a compose stack consists of, and the few settings tests differ in.

use std::time::Duration;

use anyhow::Result;

use super::stack::ComposeStack;
use crate::stack::Component;

/// Builder of a [`ComposeStack`]. There are always three brokers: the file knows no other cluster.
#[derive(Debug, Clone)]
pub struct ComposeOptions {
    pub(super) components: Vec<Component>,
    pub(super) offset_flush_interval: Duration,
}

impl ComposeOptions {
    /// Three brokers only.
    pub fn brokers() -> Self {
        Self {
            components: (1..=3).map(Component::Broker).collect(),
            // Connect's own default: what "killed before its first offset flush" means.
            offset_flush_interval: Duration::from_secs(60),
        }
    }

    /// Three brokers, Connect and both databases.
    pub fn full() -> Self {
        Self::brokers().with_source().with_target_database()
    }

    /// Adds the source database and Connect.
    #[must_use]
    pub fn with_source(self) -> Self {
        self.with(Component::SourceDatabase).with(Component::Connect)
    }

    /// Adds the target database.
    #[must_use]
    pub fn with_target_database(self) -> Self {
        self.with(Component::TargetDatabase)
    }

    /// Adds the schema registry.
    #[must_use]
    pub fn with_registry(self) -> Self {
        self.with(Component::Registry)
    }

    /// How often Connect stores the connector's offsets (60 s unless said).
    #[must_use]
    pub const fn offset_flush_interval(mut self, interval: Duration) -> Self {
        self.offset_flush_interval = interval;
        self
    }

    /// Gets the images that are missing, starts everything and waits until it is healthy.
    pub fn start(self) -> Result<ComposeStack> {
        ComposeStack::start_with(&self)
    }

    fn with(mut self, component: Component) -> Self {
        if !self.components.contains(&component) {
            self.components.push(component);
        }
        self
    }
}
