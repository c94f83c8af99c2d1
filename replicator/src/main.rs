//! Pulls another region's topics into this region's Kafka.

fn main() {}
