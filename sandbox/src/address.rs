//! The address plan: which addresses an instance, a site and a region use. Pure; no IO.
//!
//! Everything lies in 198.18.0.0/15, which is reserved for test benches and routed nowhere. An instance takes a /18, so eight
//! instances fit; each site of an instance takes a /20 of it. Sites 0 to 2 are the regions in order, site 3 is the host.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

/// 198.18.0.0/15 holds eight blocks of /18.
pub(crate) const INSTANCES_MAX: u32 = 8;
/// Four sites of /20 in a /18, of which one is the host's.
pub(crate) const REGIONS_MAX: usize = 3;
/// The site of the host: kubectl, load generators and audits run there.
pub(crate) const HOST_SITE: u32 = 3;

const BENCH_BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const INSTANCE_SIZE: u32 = 1 << 14;
const SITE_SIZE: u32 = 1 << 12;
const PART_SIZE: u32 = 1 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.base.to_bits()).leading_zeros() >= u32::from(self.prefix)
    }

    /// The n-th address of the block. Callers ask for small `n` only; the result is masked so that it cannot leave the block.
    pub(crate) fn nth(self, n: u32) -> Ipv4Addr {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        Ipv4Addr::from_bits(self.base.to_bits() | (n & host_bits))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.base, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What one site of an instance uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SiteAddresses {
    /// What the router forwards to this site.
    pub all: Cidr,
    pub node: Ipv4Addr,
    pub pods: Cidr,
    pub services: Cidr,
}

impl SiteAddresses {
    /// The `kubernetes` Service: by convention the first address of the service range.
    pub(crate) fn api_service(&self) -> Ipv4Addr {
        self.services.nth(1)
    }

    pub(crate) fn dns_service(&self) -> Ipv4Addr {
        self.services.nth(10)
    }
}

pub(crate) fn instance_block(index: u32) -> Cidr {
    Cidr { base: Ipv4Addr::from_bits(BENCH_BASE + (index % INSTANCES_MAX) * INSTANCE_SIZE), prefix: 18 }
}

pub(crate) fn site_addresses(index: u32, site: u32) -> SiteAddresses {
    let base = instance_block(index).base.to_bits() + (site % 4) * SITE_SIZE;
    let part = |n: u32| Cidr { base: Ipv4Addr::from_bits(base + n * PART_SIZE), prefix: 22 };
    SiteAddresses { all: Cidr { base: Ipv4Addr::from_bits(base), prefix: 20 }, node: part(0).nth(1), pods: part(1), services: part(2) }
}

/// The smallest index that no other instance holds.
pub(crate) fn smallest_free_index(taken: &[u32]) -> Option<u32> {
    (0..INSTANCES_MAX).find(|index| !taken.contains(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_region_of_the_first_instance_has_the_documented_addresses() {
        let site = site_addresses(0, 0);
        assert_eq!(site.node.to_string(), "198.18.0.1");
        assert_eq!(site.pods.to_string(), "198.18.4.0/22");
        assert_eq!(site.services.to_string(), "198.18.8.0/22");
        assert_eq!(site.api_service().to_string(), "198.18.8.1");
        assert_eq!(site.dns_service().to_string(), "198.18.8.10");
    }

    #[test]
    fn every_site_of_every_instance_stays_in_the_bench_range_and_overlaps_no_other() {
        let bench = Cidr { base: Ipv4Addr::new(198, 18, 0, 0), prefix: 15 };
        let sites: Vec<SiteAddresses> = (0..INSTANCES_MAX).flat_map(|index| (0..4).map(move |site| site_addresses(index, site))).collect();
        for (position, site) in sites.iter().enumerate() {
            for address in [site.node, site.pods.base, site.pods.nth(1023), site.services.nth(1023)] {
                assert!(bench.contains(address), "{address} is outside {bench}");
                assert!(site.all.contains(address), "{address} is outside {}", site.all);
                let owners = sites.iter().filter(|other| other.all.contains(address)).count();
                assert_eq!(owners, 1, "site {position}: {address} belongs to {owners} sites");
            }
        }
    }

    #[test]
    fn a_block_contains_its_last_address_and_not_the_one_after() {
        let block = instance_block(1);
        assert_eq!(block.to_string(), "198.18.64.0/18");
        assert!(block.contains(Ipv4Addr::new(198, 18, 127, 255)));
        assert!(!block.contains(Ipv4Addr::new(198, 18, 128, 0)));
    }

    #[test]
    fn an_index_that_was_freed_is_given_out_again_first() {
        assert_eq!(smallest_free_index(&[]), Some(0));
        assert_eq!(smallest_free_index(&[0, 2]), Some(1));
        assert_eq!(smallest_free_index(&[0, 1, 2, 3, 4, 5, 6, 7]), None);
    }
}
