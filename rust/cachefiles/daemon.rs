// SPDX-License-Identifier: GPL-2.0

//! `/dev/cachefiles`: what a daemon can do with it.
//!
//! The device can be open once at a time. Opening it makes a cache to be; commands configure it,
//! `bind` brings it into service, and closing the device takes it out again. Commands that
//! configure exclude each other; `copen`, `restore`, `cull` and `inuse` wait for nobody.

use crate::{
    cache::Cache,
    debug,
    interface::CacheFilesBackend,
    kernel_next::{
        compat::EOPNOTSUPP,
        cred::{
            capable,
            Capability, //
        },
        fscache,
        miscdevice::{
            MiscDevice,
            MiscDeviceRegistration, //
        },
        security::SecurityId,
        sync::poll::events, //
    },
    namei::cull,
    ondemand::Ondemand,
    plan::limits::Limits,
    protocol::command::{
        self,
        Command,
        Mode, //
    }, //
};
use kernel::{
    fs::file::{
        flags,
        File, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        poll::{
            PollCondVar,
            PollTable, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Whether a daemon has the device open.
static OPEN: Atomic<i32> = Atomic::new(0);

/// The right to have the device open.
struct Exclusive(());

impl Exclusive {
    fn take() -> Result<Self> {
        match OPEN.cmpxchg(0, 1, Acquire) {
            Ok(_) => Ok(Exclusive(())),
            Err(_) => Err(EBUSY),
        }
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        OPEN.store(0, Release);
    }
}

/// A string argument. File names need not be UTF-8.
pub(crate) struct Text(KVec<u8>);

impl Text {
    fn new(args: &[u8]) -> Result<Self> {
        let mut text = KVec::with_capacity(args.len() + 1, GFP_KERNEL)?;
        text.extend_from_slice(args, GFP_KERNEL)?;
        text.push(0, GFP_KERNEL)?;
        Ok(Text(text))
    }

    pub(crate) fn as_c_str(&self) -> Result<&CStr> {
        // A command has no NUL in it.
        CStr::from_bytes_with_nul(&self.0).map_err(|_| EINVAL)
    }
}

/// What `bind` will make a cache of.
#[derive(Default)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    pub(crate) dir: Option<Text>,
    pub(crate) tag: Option<Text>,
    pub(crate) secid: Option<SecurityId>,
    /// The cache in service.
    service: Option<fscache::Cache<CacheFilesBackend>>,
}

/// An open device file.
#[pin_data]
pub(crate) struct Daemon {
    #[pin]
    config: Mutex<Config>,
    /// The cache, once it is bound. Here as well, so that messages need no lock to find it.
    cache: SetOnce<Arc<Cache>>,
    poll: Arc<PollCondVar>,
    _exclusive: Exclusive,
}

impl Daemon {
    fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref().map(|cache| &**cache)
    }

    fn ondemand(&self) -> Result<&Ondemand> {
        self.cache()
            .map(|cache| &**cache.ondemand())
            .ok_or(EOPNOTSUPP)
    }

    fn is_dead(&self) -> bool {
        self.cache().is_some_and(|cache| cache.ondemand().is_dead())
    }

    fn execute(&self, command: Command<'_>) -> Result {
        match command {
            Command::Bind(args) => self.bind(args),
            Command::Limit(limit, args) => {
                let percent = command::parse_percent(args)?;
                let set = self.config.lock().limits.set(limit, percent);
                set.inspect_err(|_| {
                    step!("Free space limits must be in range 0%<=stop<cull<run<100%\n")
                })?;
                Ok(())
            }
            Command::Dir(args) => {
                if args.is_empty() {
                    step!("Empty directory specified\n");
                    return Err(EINVAL);
                }
                let dir = Text::new(args)?;
                let mut config = self.config.lock();
                if config.dir.is_some() {
                    step!("Second cache directory specified\n");
                    return Err(EEXIST);
                }
                config.dir = Some(dir);
                Ok(())
            }
            Command::Tag(args) => {
                if args.is_empty() {
                    step!("Empty tag specified\n");
                    return Err(EINVAL);
                }
                let tag = Text::new(args)?;
                let mut config = self.config.lock();
                // A bound cache has one in any case.
                if config.tag.is_some() || config.service.is_some() {
                    return Err(EEXIST);
                }
                config.tag = Some(tag);
                Ok(())
            }
            Command::Secctx(args) => {
                let mut config = self.config.lock();
                if args.is_empty() || config.secid.is_some() {
                    step!("Empty or second security context specified\n");
                    return Err(EINVAL);
                }
                config.secid = Some(SecurityId::from_context(Text::new(args)?.as_c_str()?)?);
                Ok(())
            }
            Command::Debug(args) => {
                debug::set_mask(command::parse_mask(args)?);
                Ok(())
            }
            Command::Cull(name) | Command::Inuse(name) => {
                if name.contains(&b'/') {
                    return Err(EINVAL);
                }
                let cache = self.cache().ok_or(EIO)?;
                match command {
                    Command::Cull(_) => cull::cull(cache, name),
                    _ => cull::check_in_use(cache, name),
                }
            }
            Command::Copen(args) => self.ondemand()?.copen(args),
            Command::Restore => {
                self.ondemand()?.restore();
                Ok(())
            }
        }
    }

    fn bind(&self, args: &[u8]) -> Result {
        let mut config = self.config.lock();
        config.limits.check()?;
        if config.dir.is_none() {
            pr_err!("bind: no cache directory specified\n");
            return Err(EINVAL);
        }
        if config.service.is_some() {
            pr_err!("bind: the cache is bound already\n");
            return Err(EBUSY);
        }
        let options = match Mode::parse(args) {
            Ok(Mode::Ondemand(options)) => options,
            Ok(Mode::Classic) => {
                pr_err!("bind: only 'bind ondemand' is supported yet\n");
                return Err(EOPNOTSUPP);
            }
            Err(e) => {
                pr_err!("bind: invalid argument\n");
                return Err(e.into());
            }
        };
        let (cache, service) = Cache::bind(&config, options, self.poll.clone())
            .inspect_err(|e| pr_err!("bind: failed: {:?}\n", e))?;
        // The lock is held, and nobody was here before: there is no service.
        self.cache.populate(cache);
        config.service = Some(service);
        // A lookup may have come in while poll() could not yet see the cache.
        self.poll.notify_all();
        Ok(())
    }
}

#[vtable]
impl MiscDevice for Daemon {
    type Ptr = Pin<KBox<Self>>;
    type OwnerModule = crate::LocalModule;

    /// As in C: seeking succeeds, though the device has no position.
    const NOOP_LLSEEK: bool = true;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        if !capable(Capability::SYS_ADMIN) {
            return Err(EPERM);
        }
        let exclusive = Exclusive::take()?;
        let poll = Arc::pin_init(
            PollCondVar::new(c"cachefiles", kernel::static_lock_class!()),
            GFP_KERNEL,
        )?;
        KBox::pin_init(
            pin_init!(Self {
                config <- new_mutex!(Config::default()),
                cache: SetOnce::new(),
                poll,
                _exclusive: exclusive,
            }),
            GFP_KERNEL,
        )
    }

    /// Takes the cache out of service, in the context of whoever closed the device. Waits for disk
    /// I/O, but for nobody's daemon: whoever waits for that is told that there is none.
    fn release(this: Self::Ptr, _file: &File) {
        let service = this.config.lock().service.take();
        if let (Some(mut service), Some(cache)) = (service, this.cache()) {
            cache.retire(&mut service);
        }
    }

    fn read(this: Pin<&Self>, file: &File, buf: UserSliceWriter) -> Result<usize> {
        let may_wait = file.flags() & flags::O_NONBLOCK == 0;
        match this.cache() {
            Some(cache) => cache.ondemand().read(buf, may_wait),
            None => Ok(0),
        }
    }

    fn write(this: Pin<&Self>, buf: UserSliceReader) -> Result<usize> {
        let len = buf.len();
        if this.is_dead() {
            return Err(EIO);
        }
        if len > PAGE_SIZE - 1 {
            return Err(EOPNOTSUPP);
        }
        let mut line = KVec::new();
        buf.read_all(&mut line, GFP_KERNEL)?;
        this.execute(Command::parse(&line)?)?;
        Ok(len)
    }

    fn poll(this: Pin<&Self>, file: &File, table: PollTable<'_>) -> u32 {
        table.register_wait(file, &this.poll);
        this.cache().map_or(0, |cache| {
            let mut mask = cache.ondemand().poll();
            if cache.space().is_culling() {
                mask |= events::OUT;
            }
            mask
        })
    }
}
