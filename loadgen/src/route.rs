//! Where connections come from and go to: lists of addresses, so that one client passes the 64 000 ports of a pair.
//!
//! A connection is known by source address and port, destination address and port. The system chooses the source port,
//! about 28 000 of them by default (`net.ipv4.ip_local_port_range`); each further source or destination gives as many
//! again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

/// Connections from one source to one destination: beyond that the search for a free port slows down, from 24 000 to
/// 4 700 connections a second where it was measured.
const CONNECTIONS_PER_ROUTE: u32 = 14_000;
/// Addresses that a range may name.
const RANGE_MAX: u32 = 65_536;

/// What a list may name at most, to be said once.
fn too_many(text: &str) -> String {
    format!("{text} names more than {RANGE_MAX} addresses")
}

/// Addresses of this machine to connect from: `127.0.0.1-127.0.0.20,10.0.0.7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources(Vec<IpAddr>);

/// Addresses to connect to instead of the URL's, each with ports of its own or the URL's: `10.0.0.1-10.0.0.8:9001-9004`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets(Vec<(IpAddr, Option<u16>)>);

impl std::str::FromStr for Sources {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut sources = Vec::new();
        for item in text.split(',') {
            sources.extend(addresses(item.trim())?);
            if sources.len() > RANGE_MAX as usize {
                return Err(too_many(text));
            }
        }
        Ok(Self(sources))
    }
}

impl std::str::FromStr for Targets {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut targets = Vec::new();
        for item in text.split(',') {
            let (hosts, ports) = split_ports(item.trim())?;
            for address in addresses(hosts)? {
                match &ports {
                    None => targets.push((address, None)),
                    Some(ports) => targets.extend(ports.clone().map(|port| (address, Some(port)))),
                }
                if targets.len() > RANGE_MAX as usize {
                    return Err(too_many(text));
                }
            }
        }
        Ok(Self(targets))
    }
}

/// `HOSTS`, `HOSTS:PORT`, `HOSTS:PORT-PORT`; an IPv6 address with ports stands in brackets.
fn split_ports(item: &str) -> Result<(&str, Option<RangeInclusive<u16>>), String> {
    let (hosts, ports) = match item.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':')),
        Some(None) => return Err(format!("{item}: the bracket is not closed")),
        None if item.matches(':').count() > 1 => (item, None),
        None => item.split_once(':').map_or((item, None), |(hosts, ports)| (hosts, Some(ports))),
    };
    let Some(ports) = ports else { return Ok((hosts, None)) };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok((hosts, Some(first..=last))),
        _ => Err(format!("{ports:?} is no port and no range of ports")),
    }
}

/// `ADDRESS` or `FIRST-LAST`.
fn addresses(item: &str) -> Result<Vec<IpAddr>, String> {
    let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address"));
    let Some((first, last)) = item.split_once('-') else { return Ok(vec![parse(item)?]) };
    match (parse(first)?, parse(last)?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            let (first, last) = (u32::from(first), u32::from(last));
            if last - first >= RANGE_MAX {
                return Err(too_many(item));
            }
            Ok((first..=last).map(|number| Ipv4Addr::from(number).into()).collect())
        }
        (IpAddr::V4(_), IpAddr::V4(_)) => Err(format!("{item}: the range runs backwards")),
        _ => Err(format!("{item}: ranges are IPv4 only")),
    }
}

/// All pairs of source and destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    sources: Vec<Option<IpAddr>>,
    destinations: Vec<SocketAddr>,
}

impl Routes {
    /// Routes for `connections` to `address`. Without sources, and on the loopback, where every address of 127.0.0.0/8
    /// is this machine's, as many sources are taken as the connections need.
    pub(crate) fn new(
        address: SocketAddr,
        sources: Option<&Sources>,
        targets: Option<&Targets>,
        connections: u32,
    ) -> io::Result<Self> {
        let destinations: Vec<SocketAddr> = targets.map_or_else(
            || vec![address],
            |Targets(list)| {
                list.iter().map(|(ip, port)| SocketAddr::new(*ip, port.unwrap_or(address.port()))).collect()
            },
        );
        let sources: Vec<Option<IpAddr>> = match sources {
            Some(Sources(list)) => list.iter().copied().map(Some).collect(),
            None => {
                let needed = connections.div_ceil(CONNECTIONS_PER_ROUTE).div_ceil(destinations.len() as u32);
                let loopback = destinations.iter().all(|to| to.is_ipv4() && to.ip().is_loopback());
                if loopback && needed > 1 {
                    let first = u32::from(Ipv4Addr::LOCALHOST);
                    (first..first + needed).map(|number| Some(Ipv4Addr::from(number).into())).collect()
                } else {
                    vec![None]
                }
            }
        };
        let mixed = sources.iter().flatten().any(|from| destinations.iter().any(|to| to.is_ipv4() != from.is_ipv4()));
        if mixed {
            return Err(io::Error::other("sources and destinations are of both IPv4 and IPv6: take one of the two"));
        }
        Ok(Self { sources, destinations })
    }

    /// The route of connection `number`: neighbours go to different destinations.
    pub(crate) fn of(&self, number: u32) -> (Option<IpAddr>, SocketAddr) {
        let number = number as usize;
        let destination = self.destinations[number % self.destinations.len()];
        (self.sources[number / self.destinations.len() % self.sources.len()], destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lists_and_ranges_are_read() {
        let Sources(sources) = "127.0.0.1-127.0.0.3, ::1".parse().expect("sound");
        assert_eq!(sources.len(), 4);
        let Targets(targets) = "10.0.0.1-10.0.0.2:9001-9003,10.0.0.9,[::1]:80,::2".parse().expect("sound");
        assert_eq!(targets.len(), 9);
        assert_eq!(targets[5], ("10.0.0.2".parse().expect("sound"), Some(9003)));
        assert_eq!(targets[6].1, None);
        for wrong in
            ["", "10.0.0.3-10.0.0.1", "0.0.0.0-255.255.255.255", "x", "1.2.3.4:0", "1.2.3.4:9-8", "[::1", "::1-::2"]
        {
            assert!(wrong.parse::<Targets>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_pair_is_used_and_no_route_is_crowded() {
        let address = "127.0.0.1:9001".parse().expect("sound");
        let routes = Routes::new(address, None, None, 100_000).expect("sound");
        let pairs: HashSet<_> = (0..100_000).map(|number| routes.of(number)).collect();
        assert_eq!(pairs.len(), 8);
        let targets = "127.0.0.1-127.0.0.3".parse().expect("sound");
        let sources = "127.0.1.1-127.0.1.2".parse().expect("sound");
        let routes = Routes::new(address, Some(&sources), Some(&targets), 6).expect("sound");
        assert_eq!((0..6).map(|number| routes.of(number)).collect::<HashSet<_>>().len(), 6);
        assert_eq!(Routes::new(address, None, None, 200).expect("sound").of(1), (None, address));
        let outside = "192.0.2.1:80".parse().expect("sound");
        let routes = Routes::new(outside, None, None, 1_000_000).expect("sound");
        assert!((0..100_000).all(|number| routes.of(number) == (None, outside)));
    }
}
