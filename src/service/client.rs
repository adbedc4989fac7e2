//! One exchange, bounded in time and size, to an allowed address.
